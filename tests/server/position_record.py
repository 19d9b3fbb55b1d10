"""Puts requests to a pruning engine in this process and writes down every position that enters its
language model: python position_record.py CHECKPOINT

The last line printed is JSON: for each case and step budget, for each request, what `Record` holds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from string import Formatter
from typing import Any, NamedTuple

import numpy as np
from launcher import compile_nothing
from PIL import Image
from transformers import AutoConfig
from vllm import LLM, SamplingParams

WHOLE = 4096
BUDGETS = (WHOLE, 48, 16, 7)
SAMPLING = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True, logprobs=0)


class Words(NamedTuple):
    """What a family's chat template writes."""

    turn: str = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    picture: str = "<|vision_start|><|image_pad|><|vision_end|>"
    video: str = "<|vision_start|><|video_pad|><|vision_end|>"

    def prompt(self, text: str) -> str:
        """A text that ends in `{end}` is not put into a turn, and ends in an image's tokens."""
        opened = self.picture.rpartition("<|")[0]
        made = text.format(picture=self.picture, video=self.video, slow=self.video, end=opened)
        return made if text.endswith("{end}") else self.turn.format(made)


QWEN = Words()
GLM = Words(
    "[gMASK]<sop><|user|>\n{}<|assistant|>\n",
    "<|begin_of_image|><|image|><|end_of_image|>",
    "<|begin_of_video|><|video|><|end_of_video|>",
)


def frames_stand_apart(checkpoint: str) -> bool:
    """Whether a prompt has the time of each frame beside it."""
    return "qwen3" in checkpoint or "glm" in checkpoint


def films_of(text: str) -> list[str]:
    """The names of the clips in a request's text."""
    return [name for _, name, *_ in Formatter().parse(text) if name in FILMS]


def words(checkpoint: str) -> Words:
    return GLM if "glm" in Path(checkpoint).name else QWEN


def prompt(text: str) -> str:
    return QWEN.prompt(text)


def picture(seed: int, height: int, width: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


FIRST, SECOND = picture(0, 224, 336), picture(1, 420, 120)
CLIP = np.random.default_rng(4).integers(0, 256, (6, 112, 112, 3), dtype=np.uint8)
CLIP_FACTS = {"fps": 2.0, "total_num_frames": 6, "duration": 3.0, "do_sample_frames": False}
CLIP_FACTS["frames_indices"] = [0, 1, 2, 3, 4, 5]
SLOW = np.random.default_rng(5).integers(0, 256, (8, 84, 168, 3), dtype=np.uint8)
SLOW[:2] //= 8  # an unusual frame
SLOW[4:6] = SLOW[2:4]  # one that nothing changed in
SLOW_FACTS = {"fps": 1.0, "total_num_frames": 8, "duration": 8.0, "do_sample_frames": False}
SLOW_FACTS["frames_indices"] = [0, 1, 2, 3, 4, 5, 6, 7]
FRAME = 16
"""Tokens of two frames, where a token is 28 pixels wide."""

FILMS = {"video": (CLIP, CLIP_FACTS), "slow": (SLOW, SLOW_FACTS)}

PICTURES = {
    "wide": FIRST,
    "square": picture(1, 300, 300),
    "tall": picture(2, 500, 120),
    "small": picture(3, 100, 100),
}
"""For `answer_record`."""

COMPARED = "frames compared"
"""The case whose clips are selected by methods that compare frames."""

CASES: dict[str, list[tuple[str, list[Image.Image], dict[str, Any]]]] = {
    "cold": [("{picture}What is it?", [FIRST], {"rate": 0.5})],
    "again": [("{picture}What is it?", [FIRST], {"rate": 0.5})],
    "other question": [("{picture}What is behind the trees?", [FIRST], {"rate": 0.5})],
    "two images": [("See {picture} and {picture}, then say.", [FIRST, SECOND], {"tokens": 19})],
    "unpruned beside pruned": [
        ("{picture}Is it old?", [SECOND], {"rate": 0.0}),
        ("{picture}Is it old?", [SECOND], {"rate": 0.9}),
        ("No picture at all.", [], {}),
        ("Go on: {end}", [SECOND], {"rate": 0.0}),
    ],
    "beside a video": [
        ("{video}Then {picture}who?", [FIRST], {"tokens": FRAME}),
        ("{picture}Then {video}and {picture}why?", [FIRST, SECOND], {"tokens": FRAME}),
    ],
    "a video": [
        ("{video}What happens?", [], {"rate": 0.6, "video_method": "vidcom2"}),
        ("{video}Then {picture}who?", [SECOND], {"rate": 0.0, "video_rate": 0.75}),
        ("{video}Then {picture}why?", [SECOND], {"tokens": 7, "video_rate": 0.0}),
        ("{video}How many?", [], {"tokens": 2}),
    ],
    "compact": [
        ("{video}Who is it?", [], {"rate": 0.7, "positions": "compact", "video_method": "evs"}),
        (
            "See {picture} and {picture}, then say.",
            [FIRST, SECOND],
            {"rate": 0.7, "positions": "compact"},
        ),
        ("{picture}Is it new?", [SECOND], {"rate": 0.0, "positions": "compact"}),
        ("{video}Who was it?", [], {"rate": 0.8, "positions": "compact"}),
    ],
    COMPARED: [
        ("{video}What happens?", [], {"rate": 0.6, "video_method": "vidcom2"}),
        ("{video}Then {picture}who?", [FIRST], {"tokens": 4, "video_method": "evs"}),
        ("{slow}Why?", [], {"rate": 0.0}),
        ("{slow}What happens?", [], {"rate": 0.6, "video_method": "vidcom2"}),
        (
            "{picture}See {video}and {slow}, then say.",
            [SECOND],
            {"rate": 0.55, "video_method": "evs"},
        ),
    ],
    "compared again": [("{video}What happens?", [], {"rate": 0.6, "video_method": "vidcom2"})],
    "preempted": [
        ("{picture}Who? {video}Where? {picture}Why?", [SECOND, FIRST], {"rate": 0.4}),
        ("{video}Where? {picture}Why?", [FIRST], {"rate": 0.65, "video_method": "evs"}),
    ],
}


class Recorder:
    """Looks at an engine's steps."""

    def __init__(self, llm: LLM, checkpoint: str) -> None:
        self.engine, self._words = llm.llm_engine, words(checkpoint)
        self._core: Any = self.engine.engine_core.engine_core
        self.scheduler = self._core.scheduler
        self._runner = self._core.model_executor.driver_worker.worker.model_runner
        self.places: dict[str, dict[int, list[int]]] = {}
        self.kept: list[tuple[int, int, int, list[int]]] = []
        self.importance: list[list[float]] = []
        self.videos: list[dict[str, Any]] = []
        self.compared: list[dict[str, Any]] = []
        self._case = ""
        self._step: Any = None
        self._watch()

    def _watch(self) -> None:
        model, execute = self._runner.model, self._runner.execute_model

        def remember(scheduled: Any, *args: Any, **kwargs: Any) -> Any:
            self._step = scheduled
            return execute(scheduled, *args, **kwargs)

        def look(_module: Any, args: Any, kwargs: dict[str, Any]) -> None:
            positions = kwargs["positions"] if "positions" in kwargs else args[0]
            if self._step is not None:
                self._note(positions)

        def note(tokens: Any, index: Any, layout: Any) -> None:
            grid = (layout.frames, layout.rows, layout.columns)
            for features, row in zip(tokens.features, index.tolist(), strict=True):
                self.kept.append((*grid, row))
                if layout.frames and len(row) < layout.tokens:
                    known = {"grid": grid, "kept": row, "features": features.tolist()}
                    self.compared += [known] if self._case == COMPARED else []
            self.importance += tokens.importance.tolist()

        count_positions = model.get_mrope_input_positions

        def note_videos(input_tokens: Any, mm_features: Any) -> Any:
            for feature in mm_features:
                if feature.modality == "video":
                    data = {name: field.data for name, field in feature.data.items()}
                    seconds = data.get("second_per_grid_ts")
                    grid = data["video_grid_thw"].tolist()
                    facts = {"grid": grid, "seconds": seconds and float(seconds)}
                    self.videos += [facts] if facts not in self.videos else []
            return count_positions(input_tokens, mm_features)

        model.get_mrope_input_positions = note_videos
        self._runner.execute_model = remember
        first = model.language_model.model.layers[0]
        first.register_forward_pre_hook(look, with_kwargs=True)
        model.on_selection = note

    def _note(self, positions: Any) -> None:
        start = 0
        for name in self._runner.input_batch.req_ids:
            tokens = self._step.num_scheduled_tokens[name]
            computed = self._runner.requests[name].num_computed_tokens
            fed = positions[:, start : start + tokens].T.tolist()
            self.places.setdefault(name, {}).update(zip(count(computed), fed))
            start += tokens

    def ask(self, case: str, preempt: bool) -> list[dict[str, Any]]:
        """Answer the requests of a case together; possibly throw them out in between."""
        self.places.clear()
        self._case = case
        for place, (text, images, settings) in enumerate(CASES[case]):
            request: Any = {"prompt": self._words.prompt(text)}
            films = [FILMS[name] for name in films_of(text)]
            if len(films) > 1 and self._words is GLM:
                continue  # it takes one a message
            data = {name: each for name, each in (("image", images), ("video", films)) if each}
            if data:
                request["multi_modal_data"] = data
                request["mm_processor_kwargs"] = {"vtprune": settings}
            self.engine.add_request(f"{case}-{place}", request, SAMPLING)
        answers: dict[str, Any] = {}
        for step in count():
            if step == 3 and preempt:
                self.scheduler.reset_prefix_cache(reset_running_requests=True)
            for output in self.engine.step():
                if output.finished:
                    answers[output.request_id] = output
            if not self.engine.has_unfinished_requests():
                break
        return [self._record(name, answers[name]) for name in sorted(answers)]

    def frames(self) -> dict[str, Any]:
        """What is kept of a clip of two pictures, of each for two frames, and of the pictures."""
        side = 252 if self._words is GLM else 336  # a size that the processor keeps
        pictures = [np.asarray(picture(seed, side, side)) for seed in (8, 9)]
        film = np.stack([pictures[0], pictures[0], pictures[1], pictures[1]])
        facts = {**CLIP_FACTS, "total_num_frames": 4, "frames_indices": [0, 1, 2, 3]}
        told = {}
        for name, text, data in (
            ("video", "{video}What?", {"video": [(film, facts)]}),
            ("images", "{picture}and {picture}What?", {"image": [*map(Image.fromarray, pictures)]}),
        ):
            self.kept, self.importance = [], []
            request = {"prompt": self._words.prompt(text), "multi_modal_data": data}
            request["mm_processor_kwargs"] = {"vtprune": {"method": "vispruner", "tokens": 101}}
            self.engine.add_request(name, request, SAMPLING)
            while self.engine.has_unfinished_requests():
                self.engine.step()
            told[name] = {"kept": self.kept, "importance": self.importance}
        return told

    def _record(self, name: str, output: Any) -> dict[str, Any]:
        (fed,) = [places for own, places in self.places.items() if own.startswith(name)]
        answer = output.outputs[0]
        logprobs = [next(iter(each.values())).logprob for each in answer.logprobs]
        return {
            "prompt": list(output.prompt_token_ids),
            "answer": list(answer.token_ids),
            "logprobs": logprobs,
            "places": sorted(fed.items()),
        }


@contextmanager
def budget(scheduler: Any, tokens: int) -> Iterator[None]:
    before, scheduler.max_num_scheduled_tokens = scheduler.max_num_scheduled_tokens, tokens
    try:
        yield
    finally:
        scheduler.max_num_scheduled_tokens = before


def main() -> None:
    compile_nothing()
    llm = LLM(
        sys.argv[1],
        dtype=AutoConfig.from_pretrained(sys.argv[1]).dtype,
        max_model_len=WHOLE,
        max_num_batched_tokens=WHOLE,
        max_num_seqs=4,
        enforce_eager=True,
        block_size=32,
        mm_processor_kwargs={"vtprune": {"method": "vispruner", "rate": 0.5}},
    )
    checkpoint = Path(sys.argv[1]).name
    recorder, found = Recorder(llm, checkpoint), {}
    for tokens in BUDGETS:
        with budget(recorder.scheduler, tokens):
            llm.reset_prefix_cache()
            for case in CASES:
                if tokens != WHOLE and case == "cold":
                    llm.reset_prefix_cache()
                found[f"{case}/{tokens}"] = recorder.ask(case, case == "preempted")
    first, videos = recorder.importance[0], [*recorder.videos]
    found = {"kept": recorder.kept, "importance": first, "videos": videos, "found": found}
    found |= {"compared": recorder.compared, "frames": recorder.frames()}
    print("positions", json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main()
