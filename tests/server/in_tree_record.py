"""Puts requests with videos to an engine in this process, vLLM's own or pruning, and writes down
every position that enters its language model: python in_tree_record.py CHECKPOINT OPTIONS

OPTIONS is JSON: `flags` for the engine, `vtprune` its settings or null, `rates` of images, `cases`,
`budgets`. The last line printed is JSON: `found`, by `name(...)` what `Recorder._record` returns;
what was `kept` of images and of videos; and grid and pace of the `video`.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from launcher import compile_nothing
from position_record import (
    CLIP,
    CLIP_FACTS,
    FIRST,
    SAMPLING,
    SECOND,
    WHOLE,
    Recorder,
    budget,
)
from vllm import LLM

from vllm_pruner import compat

TALL = SECOND
CASES: dict[str, tuple[str, list[Any]]] = {
    "a video": ("{video}What happens?", []),
    "an image": ("{picture}What is it?", [TALL]),
    "an image before": ("{picture}Then {video}why?", [FIRST]),
    "an image behind": ("{video}Then {picture}who?", [TALL]),
    "much text behind": ("{video}" + "What happens, and what will happen next? " * 5, []),
    "images around": ("{picture}Is {video}why {picture}so?", [FIRST, TALL]),
}
TURNS = ("cold", "again")


def name(case: str, tokens: int, rate: float | None, turn: str) -> str:
    """Of one answer in what is printed."""
    return f"{case}/{tokens}/{rate}/{turn}"


class VideoRecorder(Recorder):
    """A `Recorder` of any engine, which also notes what vLLM keeps of videos."""

    masks: list[list[bool]]

    def _watch(self) -> None:
        super()._watch()
        self.masks = []
        model = importlib.import_module(self._stock_class().__module__)
        for function in ("compute_retention_mask", "vidcom2_compute_retention_mask"):
            if hasattr(model, function):
                setattr(model, function, self._noting(getattr(model, function)))

    def _stock_class(self) -> type:
        return next(
            each for each in type(self._runner.model).__mro__ if each.__module__.startswith("vllm.")
        )

    def _noting(self, compute: Any) -> Any:
        def noting(*args: Any, **kwargs: Any) -> Any:
            mask = compute(*args, **kwargs)
            self.masks.append(mask.tolist())
            return mask

        return noting

    def one(self, case: str, settings: dict[str, Any] | None) -> dict[str, Any]:
        """Answer one request."""
        text, images = CASES[case]
        data: dict[str, Any] = {"image": images} if images else {}
        if "{video}" in text:
            data["video"] = [(CLIP, CLIP_FACTS)]
        request: Any = {"prompt": self._words.prompt(text), "multi_modal_data": data}
        if settings is not None:
            request["mm_processor_kwargs"] = {"vtprune": settings}
        self.places.clear()
        self.engine.add_request(case, request, SAMPLING)
        while self.engine.has_unfinished_requests():
            outputs = self.engine.step()
        return self._record(case, outputs[0])


def main() -> None:
    compile_nothing()
    compat.enable_position_hook_on_cpu()  # without which vLLM's own pruning does not run on a CPU
    checkpoint, options = sys.argv[1], json.loads(sys.argv[2])
    settings = options["vtprune"]
    llm = LLM(
        checkpoint,
        dtype="float32",
        max_model_len=WHOLE,
        max_num_batched_tokens=WHOLE,
        max_num_seqs=4,
        enforce_eager=True,
        block_size=32,
        mm_processor_kwargs=settings and {"vtprune": settings},
        **options["flags"],
    )
    recorder, found = VideoRecorder(llm, Path(checkpoint).name), {}
    for tokens in options["budgets"]:
        with budget(recorder.scheduler, tokens):
            for case in options["cases"]:
                for rate in options["rates"]:
                    llm.reset_prefix_cache()
                    asked = None if rate is None else {"rate": rate}
                    for turn in TURNS:
                        found[name(case, tokens, rate, turn)] = recorder.one(case, asked)
    kept = {"images": recorder.kept, "videos": recorder.masks}
    told = {"found": found, "kept": kept, "video": recorder.videos and recorder.videos[0]}
    print("found", json.dumps(told))  # noqa: T201


if __name__ == "__main__":
    main()
