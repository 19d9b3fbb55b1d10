"""Rotary positions of several dimensions in the real engine, whatever is cached or chunked.

The oracle is `transformers`: its positions of the unpruned prompt, gathered at all text and at the
kept rows. Every position that entered the language model is compared, decoding included.
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from forked import run
from nightly import NIGHTLY
from position_record import (
    BUDGETS,
    CASES,
    CLIP,
    COMPARED,
    FILMS,
    FIRST,
    WHOLE,
    films_of,
    frames_stand_apart,
)
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
from vllm_process import MODELS, environment
from window_order import in_raster

import vllm_pruner

pytestmark = pytest.mark.server

MODULES = {
    "demo-glm4v": "transformers.models.glm4v.modeling_glm4v:Glm4vModel",
    "demo-glm4v-moe": "transformers.models.glm4v_moe.modeling_glm4v_moe:Glm4vMoeModel",
    "demo-qwen2": "transformers.models.qwen2_vl.modeling_qwen2_vl:Qwen2VLModel",
    "demo-qwen2.5": "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl:Qwen2_5_VLModel",
    "demo-qwen3": "transformers.models.qwen3_vl.modeling_qwen3_vl:Qwen3VLModel",
    "demo-qwen3-moe": "transformers.models.qwen3_vl_moe.modeling_qwen3_vl_moe:Qwen3VLMoeModel",
    "demo-qwen3.5": "transformers.models.qwen3_5.modeling_qwen3_5:Qwen3_5Model",
    "demo-qwen3.5-moe": "transformers.models.qwen3_5_moe.modeling_qwen3_5_moe:Qwen3_5MoeModel",
}


ROUGHLY = 0.6
"""What rounding moves a log-probability by in bfloat16, the only dtype that vLLM runs linear
attention in on a CPU; most where it sends a token to other experts. Wrong rows move some by more;
positions are compared exactly."""


class Run(NamedTuple):
    """Of tokens in a prompt."""

    token: int
    grid: tuple[int, int, int] | None
    """Frames, rows and columns of what it is of; None for text."""

    kept: Sequence[int]
    """Which of its tokens it has."""

    of_video: int = 0
    """How many tokens are kept of the video that it is of."""


class Recorded:
    """What a checkpoint's engine did."""

    def __init__(self, checkpoint: str, found: dict[str, Any]) -> None:
        self.checkpoint, self.answers = checkpoint, found["found"]
        self.frames, self.importance_of_first = found["frames"], found["importance"]
        self.compared: list[dict[str, Any]] = found["compared"]
        self._films: dict[str, Any] = dict(zip(FILMS, found["videos"], strict=True))
        self.config: Any = AutoConfig.from_pretrained(MODELS / checkpoint)
        self.rounds = self.config.dtype == torch.bfloat16
        self._kept: dict[tuple[int, ...], list[int]] = {}
        for *grid, kept in found["kept"]:
            assert self._kept.setdefault((*grid, len(kept)), kept) == kept
        # The first case selects of the first picture; the other one has another grid.
        first = tuple(found["kept"][0][1:3])
        pictures = {(rows, columns) for frames, rows, columns, _ in self._kept if not frames}
        (second,) = pictures - {first}
        self._grids = {id(FIRST): first, **{id(p): second for p in self._pictures() if p != FIRST}}

    @staticmethod
    def _pictures() -> list[Any]:
        return [image for case in CASES.values() for _, images, _ in case for image in images]

    def expected(self, case: str, number: int, record: dict[str, Any]) -> torch.Tensor:
        """The positions `[tokens, 3]` of a request's prompt and answer."""
        asked = CASES[case][number]
        text, images, settings = asked
        is_compact = settings.get("positions") == "compact" and settings["rate"]
        if is_compact:
            return self._compact(asked, record)
        whole, at = self.unpruned(record["prompt"], asked)
        grids = [self._grids[id(image)] for image in images]
        positions = self._stock(whole, grids, films_of(text))
        decoded = int(positions.max()) + 1 + torch.arange(len(record["answer"]))
        return torch.cat([positions[:, at].T, decoded.unsqueeze(1).expand(-1, 3)])

    def unpruned(self, prompt: list[int], asked: Any) -> tuple[list[int], list[int]]:
        """A prompt as it would be without pruning, and where each of its tokens is in that."""
        whole: list[int] = []
        at: list[int] = []
        for token, grid, kept, _ in self._runs(prompt, asked):
            at += [len(whole) + row for row in kept]
            whole += [token] * (math.prod(grid) if grid else len(kept))
        return whole, at

    def _runs(self, prompt: list[int], asked: Any) -> Iterator[Run]:
        """The runs of a prompt, its clips as one or frame by frame."""
        text, images, settings = asked
        grids, names = iter([self._grids[id(image)] for image in images]), iter(films_of(text))
        joins = self._is_apart and settings.get("video_method") and settings.get("rate") != 0
        frames: Iterator[Run] = iter(())
        if self._is_apart and not joins:
            frames = iter(self._frames(films_of(text), self.kinds(prompt).count(2)))
        before = None
        for (token, kind), alike in groupby(zip(prompt, self.kinds(prompt), strict=True)):
            length = len(list(alike))
            if self._is_apart and not joins and (before, token) == self._marks and kind == 0:
                yield next(frames)  # of which nothing is kept
            before = token
            if kind == 1:
                rows, columns = next(grids)
                kept: Sequence[int] = range(length)
                if length < rows * columns:
                    kept = self._kept[0, rows, columns, length]
                yield Run(token, (1, rows, columns), kept)
            elif kind == 2 and joins:
                yield from self._joined(next(names), length)
            elif kind == 2 and not self._is_apart:
                grid = self._grid(next(names))
                yield Run(token, grid, self._kept_of(grid, length), length)
            elif kind == 2:
                run = next(frames)
                assert len(run.kept) == length
                yield run
            else:
                yield Run(token, None, range(length))

    def _joined(self, name: str, length: int) -> Iterator[Run]:
        """The frames of a clip that is one run, and the text between, which is that of the clip
        unpruned."""
        between = self._between(name)
        frames = self._frames([name], length - sum(map(len, between)))
        for frame, text in zip(frames, [*between, []], strict=True):
            yield frame
            yield from (Run(token, None, range(1)) for token in text)

    def _between(self, name: str) -> list[list[int]]:
        """What stands between the frames of a clip, from the prompt of a request that keeps all."""
        case, number = {"video": ("a video", 2), "slow": (COMPARED, 2)}[name]
        assert films_of(CASES[case][number][0]) == [name]
        prompt = self.answers[f"{case}/{WHOLE}"][number]["prompt"]
        kinds = self.kinds(prompt)
        parts = groupby(zip(prompt, kinds, strict=True), lambda pair: pair[1] == 2)
        runs = [(of_video, [token for token, _ in run]) for of_video, run in parts]
        return [run for of_video, run in runs[2:-2] if not of_video]

    def _frames(self, names: list[str], total: int) -> list[Run]:
        """The frames of a clip of which so many tokens are kept, a run each."""
        if not names:
            return []
        (name,) = names
        frames, rows, columns = grid = self._grid(name)
        kept, size = self._kept_of(grid, total), rows * columns
        return [
            Run(
                self._frame_token,
                (1, rows, columns),
                [row - first for row in kept if first <= row < first + size],
                total,
            )
            for first in range(0, frames * size, size)
        ]

    def _kept_of(self, grid: tuple[int, int, int], total: int) -> Sequence[int]:
        return range(total) if total == math.prod(grid) else self._kept[*grid, total]

    @property
    def _is_apart(self) -> bool:
        return frames_stand_apart(self.checkpoint)

    @property
    def _frame_token(self) -> int:
        """What a video's frames consist of."""
        is_glm = "glm" in self.checkpoint
        return int(self.config.image_token_id if is_glm else self.config.video_token_id)

    @property
    def _marks(self) -> tuple[int, int]:
        name = "image" if "glm" in self.checkpoint else "vision"
        around = (f"{name}_start_token_id", f"{name}_end_token_id")
        return getattr(self.config, around[0]), getattr(self.config, around[1])

    def _grid(self, name: str) -> tuple[int, int, int]:
        """Frames, rows and columns of tokens of a clip."""
        frames, rows, columns = self._films[name]["grid"]
        merge = self.config.vision_config.spatial_merge_size
        return frames, rows // merge, columns // merge

    def kinds(self, ids: list[int]) -> list[int]:
        """0 for text, 1 for an image's tokens, 2 for a video's."""
        kinds, in_video = [], False
        for token in ids:
            if token == getattr(self.config, "video_start_token_id", None):
                in_video = True
            elif token == getattr(self.config, "video_end_token_id", None):
                in_video = False
            is_image = token == self.config.image_token_id
            is_video = token == self.config.video_token_id or (is_image and in_video)
            kinds.append(2 if is_video else int(is_image))
        return kinds

    def _compact(self, asked: Any, record: dict[str, Any]) -> torch.Tensor:
        """The same as if each picture or frame were as small as what is kept of it: rows and
        columns are drawn together, text begins where the small picture ends."""
        positions: list[tuple[int, int, int]] = []
        start = 0
        runs = self._runs([*record["prompt"], *record["answer"]], asked)
        for _, grid, rows_kept, of_video in runs:
            if grid is None:
                positions += [(place,) * 3 for place in range(start, start + len(rows_kept))]
                start += len(rows_kept)
                continue
            frames, rows, columns = grid
            each = math.ceil(len(rows_kept) / frames)
            if of_video:
                each = math.ceil(of_video / self._grid("video")[0])
            fewer_rows = math.ceil(rows * math.sqrt(each / (rows * columns)))
            fewer_columns = math.ceil(each / fewer_rows)
            assert fewer_rows * fewer_columns >= each and fewer_columns <= columns
            for kept in rows_kept:
                frame, place = divmod(kept, rows * columns)
                row, column = divmod(place, columns)
                row, column = row * fewer_rows // rows, column * fewer_columns // columns
                positions.append((start + self._time(frame), start + row, start + column))
            start += max(fewer_rows, fewer_columns, self._time(frames - 1) + 1)
        return torch.tensor(positions)

    def _time(self, frame: int) -> int:
        """Where a frame stands in a video that is one run."""
        per_second = getattr(self.config.vision_config, "tokens_per_second", 1)
        return int(frame * (self._films["video"]["seconds"] or 1.0) * per_second)

    def _stock(
        self, ids: list[int], grids: list[tuple[int, int]], names: list[str]
    ) -> torch.Tensor:
        """`[3, tokens]` by transformers."""
        kinds = torch.tensor([self.kinds(ids)], dtype=torch.int32)
        if not kinds.any():
            return torch.arange(len(ids)).expand(3, -1)
        merge = self.config.vision_config.spatial_merge_size
        thw = [[1, rows * merge, columns * merge] for rows, columns in grids]
        items: dict[str, Any] = {"image_grid_thw": torch.tensor(thw)} if thw else {}
        if (kinds == 2).any():
            films = [self._films[name] for name in names]
            items["video_grid_thw"] = torch.tensor([film["grid"] for film in films])
            if films[0]["seconds"] is not None:
                items["second_per_grid_ts"] = [film["seconds"] for film in films]
        module, name = MODULES[self.checkpoint].split(":")
        model = getattr(importlib.import_module(module), name)
        tokens = torch.tensor([ids])
        stand_in: Any = SimpleNamespace(config=self.config)
        stand_in.get_vision_position_ids = lambda *args, **kwargs: model.get_vision_position_ids(
            stand_in, *args, **kwargs
        )
        positions, _ = model.get_rope_index(stand_in, tokens, kinds, **items)
        return torch.as_tensor(positions[:, 0])

    def kept_of_first(self, length: int) -> list[int]:
        """The kept rows of the first picture."""
        return list(self._kept[(0, *self._grids[id(FIRST)], length)])


def _unless_of_experts(checkpoint: str) -> Any:
    """A model of experts shares all that is tested here with the dense one: every night."""
    return pytest.param(checkpoint, marks=NIGHTLY if checkpoint.endswith("-moe") else ())


@pytest.fixture(scope="module", params=[_unless_of_experts(each) for each in MODULES])
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    script = Path(__file__).with_name("position_record.py")
    done = run(
        [str(script), str(MODELS / request.param)],
        environment(VLLM_ENABLE_V1_MULTIPROCESSING="0"),
        tmp_path_factory.mktemp("positions"),
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("positions ")]
    return Recorded(request.param, json.loads(line.removeprefix("positions ")))


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("case", CASES)
def test_every_token_stands_where_it_would_without_pruning(
    recorded: Recorded, case: str, budget: int
) -> None:
    for number, record in enumerate(recorded.answers[f"{case}/{budget}"]):
        expected = recorded.expected(case, number, record)
        places = [place for place, _ in record["places"]]
        found = torch.tensor([position for _, position in record["places"]])
        assert torch.equal(found, expected[places])
        # A prefix hit leaves its part out; all behind it went through the language model.
        last = len(record["prompt"]) + len(record["answer"]) - 1
        assert places == list(range(places[0], last))
        if case in ("cold", "preempted"):
            assert places[0] == 0


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("case", CASES)
def test_answers_are_the_same_in_steps_of_any_size(
    recorded: Recorded, case: str, budget: int
) -> None:
    found, whole = recorded.answers[f"{case}/{budget}"], recorded.answers[f"{case}/{WHOLE}"]
    for one, other in zip(found, whole, strict=True):
        end = len(one["answer"])
        if recorded.rounds:  # where two words nearly tie, what follows has nothing in common
            pairs = enumerate(zip(one["answer"], other["answer"], strict=True))
            end = next((place for place, (here, there) in pairs if here != there), end - 1) + 1
        else:
            assert one["answer"] == other["answer"]
        close = pytest.approx(other["logprobs"][:end], abs=ROUGHLY if recorded.rounds else 2e-3)
        assert one["logprobs"][:end] == close
    for again in ("again", "compared again"):
        assert recorded.answers[f"{again}/{budget}"][0]["places"][0][0] > 0, "a prefix was cached"


@pytest.mark.parametrize(
    ("case", "number"),
    [("cold", 0), (COMPARED, 1)],
)
def test_transformers_gives_the_same_answer_to_the_kept_tokens(
    recorded: Recorded, case: str, number: int
) -> None:
    """The first picture, beside a clip too: all rows of the unpruned prompt, gathered at those that
    are kept and at all text, with positions from the oracle."""
    record, asked = recorded.answers[f"{case}/{WHOLE}"][number], CASES[case][number]
    folder = MODELS / recorded.checkpoint
    model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype="float32").eval()
    whole, at = recorded.unpruned([*record["prompt"], *record["answer"]], asked)
    kinds = torch.tensor(recorded.kinds(whole))
    with torch.no_grad():
        embeds = model.get_input_embeddings()(torch.tensor(whole))
        levels: list[torch.Tensor] = []
        for kind, (pixels, grid) in enumerate(_pixels(folder, films_of(asked[0])), 1):
            visual = model.model.visual(pixels, grid_thw=grid)
            embeds[kinds == kind] = visual.pooler_output
            for place, level in enumerate(getattr(visual, "deepstack_features", None) or ()):
                levels += [torch.zeros_like(embeds)] if place == len(levels) else []
                levels[place][kinds == kind] = level
        is_visual = kinds[at] > 0
        deepstack: Any = {}
        if levels:
            deepstack["visual_pos_masks"] = is_visual.unsqueeze(0)
            deepstack["deepstack_visual_embeds"] = [level[at][is_visual] for level in levels]
        hidden = model.model.language_model(
            inputs_embeds=embeds[at].unsqueeze(0),
            position_ids=recorded.expected(case, number, record).T.unsqueeze(1),
            **deepstack,
        ).last_hidden_state
        scores = model.lm_head(hidden)[0].log_softmax(dim=-1)
    answer = torch.tensor(record["answer"])
    before = scores[len(record["prompt"]) - 1 : -1]
    logprobs = before.gather(1, answer.unsqueeze(1)).flatten()
    close = ROUGHLY if recorded.rounds else 5e-3
    assert recorded.rounds or torch.equal(before.argmax(dim=-1), answer)
    assert float((before.amax(dim=-1) - logprobs).max()) <= close
    assert logprobs.tolist() == pytest.approx(record["logprobs"], abs=close)


_NORMS = ("image_mean", "image_std")


def _pixels(folder: Path, films: list[str]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Patches and grid of the first picture, and of the clip if that is asked about too."""
    processor: Any = AutoProcessor.from_pretrained(folder)
    made = processor.image_processor(images=[FIRST], return_tensors="pt")
    yield made["pixel_values"], made["image_grid_thw"]
    if films:
        # vLLM normalises frames on the device, as pictures
        alike = {name: getattr(processor.image_processor, name) for name in _NORMS}
        video: Any = {"videos": [CLIP], "do_sample_frames": False, **alike}
        made = processor.video_processor(**video, return_tensors="pt")
        ((frames, *sides),) = made["video_grid_thw"].tolist()
        yield made["pixel_values_videos"], torch.tensor([[1, *sides]] * frames)  # GLM-V's way


def test_what_is_kept_of_a_clip_is_what_its_method_chooses_offline(recorded: Recorded) -> None:
    """Of all frames together, whether they stand apart in the prompt or not."""
    width = recorded.config.get_text_config().hidden_size
    counts: dict[str, list[list[int]]] = {"vidcom2": [], "evs": []}
    for each in recorded.compared:
        frames, rows, columns = each["grid"]
        keep = len(each["kept"])
        method = "vidcom2" if keep == round(0.4 * frames * rows * columns) else "evs"
        features = torch.tensor(each["features"])[:, :width].unflatten(0, (frames, -1))
        kept = vllm_pruner.select_video(method, keep=keep, features=features).tolist()
        assert each["kept"] == kept
        frame_of = [place // (rows * columns) for place in kept]
        counts[method].append([frame_of.count(frame) for frame in range(frames)])
    assert [4, 0, 0] in counts["evs"], "nothing of the later frames"
    assert any(len({*some}) > 1 for some in counts["vidcom2"])


def test_importance_is_the_attention_received_before_the_merger(recorded: Recorded) -> None:
    """Of the first picture, in raster order: from the last layer's queries and keys, the whole map
    at once, four patches a token."""
    folder = MODELS / recorded.checkpoint
    model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype="float32").eval()
    processor: Any = AutoProcessor.from_pretrained(folder).image_processor
    inputs = processor(images=[FIRST], return_tensors="pt")
    visual = model.model.visual
    attention = visual.blocks[-1].attn
    rotate = importlib.import_module(attention.__module__).apply_rotary_pos_emb_vision
    seen: list[torch.Tensor] = []

    def look(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        states = args[0] if args else kwargs["hidden_states"]
        heads = module.qkv(states).unflatten(1, (3, module.num_heads, -1))
        query, key = rotate(heads[:, 0], heads[:, 1], *kwargs["position_embeddings"])
        logits = torch.einsum("qhd,khd->hqk", query, key) * query.shape[-1] ** -0.5
        seen.append(logits.softmax(dim=-1).mean(dim=(0, 1)))

    attention.register_forward_pre_hook(look, with_kwargs=True)
    with torch.no_grad():
        visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"])
    folded = seen[0].unflatten(0, (-1, 4)).sum(dim=1)
    tokens = in_raster(folded, visual, inputs["image_grid_thw"])
    found = torch.tensor(recorded.importance_of_first)
    close = {"rtol": 5e-2, "atol": 5e-3} if recorded.rounds else {"rtol": 2e-3, "atol": 1e-6}
    torch.testing.assert_close(found, tokens, **close)


def test_a_frame_is_ranked_as_a_picture_of_its_own(recorded: Recorded) -> None:
    """101 tokens are 51 of the first frame and 50 of the second."""
    (video,), images = recorded.frames["video"]["importance"], recorded.frames["images"]
    assert video == pytest.approx(sum(images["importance"], []), rel=2e-3, abs=1e-6)
    ((frames, rows, columns, kept),) = recorded.frames["video"]["kept"]
    assert (frames, len(kept)) == (2, 101) and kept == sorted(set(kept))
    first = [place for place in kept if place < rows * columns]
    second = [place - rows * columns for place in kept[len(first) :]]
    assert (len(first), len(second)) == (51, 50)
    # VisPruner keeps the most important ones, by half of each share.
    for chosen, scores in zip((first, second), images["importance"], strict=True):
        order = sorted(range(len(scores)), key=lambda place: -scores[place])
        assert {*order[: len(chosen) // 2]} <= {*chosen}
