"""Where each token of a prompt has to stand: `transformers`' positions of the unpruned prompt,
gathered at all text and at the kept rows."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from position_record import CASES, COMPARED, FILMS, FIRST, WHOLE, films_of, frames_stand_apart
from transformers import AutoConfig
from vllm_process import MODELS

__all__ = ["MODULES", "Recorded"]

MODULES = {
    "demo-glm4v": "transformers.models.glm4v.modeling_glm4v:Glm4vModel",
    "demo-glm4v-moe": "transformers.models.glm4v_moe.modeling_glm4v_moe:Glm4vMoeModel",
    "demo-glm-ocr": "transformers.models.glm_ocr.modeling_glm_ocr:GlmOcrModel",
    "demo-qwen2": "transformers.models.qwen2_vl.modeling_qwen2_vl:Qwen2VLModel",
    "demo-qwen2.5": "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl:Qwen2_5_VLModel",
    "demo-qwen3": "transformers.models.qwen3_vl.modeling_qwen3_vl:Qwen3VLModel",
    "demo-qwen3-moe": "transformers.models.qwen3_vl_moe.modeling_qwen3_vl_moe:Qwen3VLMoeModel",
    "demo-qwen3.5": "transformers.models.qwen3_5.modeling_qwen3_5:Qwen3_5Model",
    "demo-qwen3.5-moe": "transformers.models.qwen3_5_moe.modeling_qwen3_5_moe:Qwen3_5MoeModel",
}


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
