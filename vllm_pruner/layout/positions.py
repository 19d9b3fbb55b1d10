"""Rotary positions of several dimensions (M-RoPE) for prompts whose images are pruned.

A stock model counts the positions of a prompt from the grids of its images: text after an image
goes on where the image's grid ends, however few of its tokens are there. So the positions of text,
and of images that keep everything, are those of the unpruned prompt (`Unpruned`); they follow from
the prompt alone. Which tokens an image keeps is known when it has been encoded, so its rows carry
their own places: ten trailing columns of digits (`with_places`), which are taken off again and
written for exactly the rows that a step feeds (`fill`).

Nothing is derived from what was computed before. A prefix-cache hit or the border of a chunk may be
anywhere, and to fill twice is to fill once.

Digits are base 256, two a number, because bfloat16 holds whole numbers up to 256 exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

__all__ = ["DIGITS", "Unpruned", "as_placed", "fill", "split", "unpruned", "with_places"]

DIGITS = 10
"""Trailing columns: time, row, column, the number of the row among those kept, and how many these
are."""

_BASE = 256
_IMAGE_STAYS, _OTHER_STAYS = -1, -2
"""In the first column: the row stays where the prompt put it; of an image, of anything else."""


def with_places(rows: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Return `[images, keep, D + 10]` of `[images, keep, D]` kept rows and their places.

    Args:
        rows: in any float dtype.
        places: `[images, keep, 3]`, time, row and column within the image, each below 65,536.
    """
    number = torch.arange(rows.shape[1], device=rows.device).expand(rows.shape[:2])
    keep = torch.full_like(number, rows.shape[1])
    where = torch.cat([places, torch.stack([number, keep], dim=2)], dim=2)
    digits = torch.stack([where // _BASE, where % _BASE], dim=3).flatten(2)
    return torch.cat([rows, digits.to(rows.dtype)], dim=2)


def as_placed(rows: torch.Tensor, is_image: bool) -> torch.Tensor:
    """Return `[N, D + 10]` of `[N, D]` rows of an image (or of a video) that keeps everything."""
    nowhere = torch.zeros(1, len(rows), 3, dtype=torch.int64, device=rows.device)
    marked = with_places(rows.unsqueeze(0), nowhere)[0]
    marked[:, -DIGITS] = _IMAGE_STAYS if is_image else _OTHER_STAYS
    return marked


def split(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows `[n, D]` and digits `[n, 10]` of `[n, D + 10]`."""
    return rows[:, :-DIGITS], rows[:, -DIGITS:]


def fill(
    positions: torch.Tensor,
    parts: Sequence[torch.Tensor],
    runs: Sequence[tuple[int, int]],
    computed: int,
) -> None:
    """Write the positions of the media rows that a step feeds, in place.

    Args:
        positions: `[3, prompt]` int64.
        parts: the digits `[n, 10]` of each image or video that the step feeds rows of, in order, on
            the CPU.
        runs: start and length of each run of image tokens in the prompt, ascending. Before each one
            stands a token that is not of an image.
        computed: tokens before the step. A drafter's step starts one token later.
    """
    rest = iter(run for run in runs if run[0] + run[1] > computed)
    for part in parts:
        numbers = part.long()
        kind, row, keep = int(numbers[0, 0]), _number(numbers, 6), _number(numbers, 8)
        if kind == _OTHER_STAYS:
            continue
        starts = (run[0] for run in rest if _may_start(run, row, keep, computed))
        start = next(starts, None)
        if kind == _IMAGE_STAYS:
            continue
        assert start is not None, "the prompt was checked for what could hide an image"
        places = numbers[:, :6:2] * _BASE + numbers[:, 1:6:2]
        base = positions[0, start - 1] + 1 if start else 0
        first = start + row
        positions[:, first : first + len(part)] = base + places.T.to(positions.device)


def _number(digits: torch.Tensor, column: int) -> int:
    """Return the number in two columns of the first row."""
    return int(digits[0, column]) * _BASE + int(digits[0, column + 1])


def _may_start(run: tuple[int, int], row: int, keep: int, computed: int) -> bool:
    """Return whether a step can feed a run of `keep` from its `row` on: the step starts there, or
    before the run. (Of runs of one row, a drafter's step may get the one before: it writes where
    the target has been.)"""
    start, length = run
    return length == keep and (start >= computed if row == 0 else start <= computed)


@dataclass(frozen=True, slots=True)
class Unpruned:
    """A prompt as it would be without pruning."""

    tokens: list[int]
    offsets: list[int]
    """Where each image or video starts in it."""

    index: torch.Tensor
    """`[pruned prompt]` int64: where each token of the pruned prompt is in it. The rows of a pruned
    image are its first ones there; `fill` moves them."""


def unpruned(tokens: Sequence[int], media: Sequence[tuple[int, int, int]]) -> Unpruned:
    """Return the unpruned prompt of a pruned one.

    Args:
        tokens: of the pruned prompt.
        media: of each image or video, by offset: its offset, its length, and its length unpruned.
    """
    whole: list[int] = []
    index: list[int] = []
    offsets, end = [], 0
    for offset, length, original in media:
        index += range(len(whole), len(whole) + offset - end)
        whole += tokens[end:offset]
        offsets.append(len(whole))
        index += range(len(whole), len(whole) + length)
        whole += tokens[offset : offset + length]
        whole += [tokens[offset]] * (original - length)
        end = offset + length
    index += range(len(whole), len(whole) + len(tokens) - end)
    whole += tokens[end:]
    return Unpruned(whole, offsets, torch.tensor(index))
