"""Rotary positions of several dimensions (M-RoPE) for prompts whose images or videos are pruned.

A stock model counts the positions of a prompt from the grids of its images: text after an image
goes on where the image's grid ends, however few of its tokens are there. So the positions of text,
and of images that keep everything, are those of the unpruned prompt (`Unpruned`); they follow from
the prompt alone. Which tokens an image keeps is known when it has been encoded, so its rows carry
their own places: eleven trailing columns of digits (`with_places`), which are taken off again and
written for exactly the rows that a step feeds (`fill`).

Nothing is derived from what was computed before. A prefix-cache hit or the border of a chunk may be
anywhere, and to fill twice is to fill once.

What is said of an image here holds for a video whose tokens are one run, and for each frame of one
whose frames are runs of their own.

Digits are base 256, two a number, because bfloat16 holds whole numbers up to 256 exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

__all__ = ["DIGITS", "MOST", "Unpruned", "as_placed", "fill", "split", "unpruned", "with_places"]

DIGITS = 11
"""Trailing columns: time, row, column, the number of the row among those kept, and how many these
are, two each; last one of the following."""

_BASE = 256
MOST = _BASE**2 - 1
"""The largest number that two digits hold."""

_IMAGE, _VIDEO, _IMAGE_STAYS, _OTHER_STAYS = range(4)
"""A kept row of an image, of a video; a row that stays where the prompt put it, of an image, of
anything else."""


def with_places(
    rows: torch.Tensor, places: torch.Tensor, is_image: bool = True, runs: Sequence[int] = ()
) -> torch.Tensor:
    """Return `[images, keep, D + 11]` of `[images, keep, D]` kept rows and their places.

    Args:
        rows: in any float dtype.
        places: `[images, keep, 3]`, time, row and column within the image, each below 65,536.
        is_image: or a video.
        runs: how many rows are in each run of the prompt; all in one by default.
    """
    device = rows.device
    of_run = torch.cat([_numbered(length, device) for length in runs or [rows.shape[1]] if length])
    where = torch.cat([places, of_run.expand(len(rows), -1, -1)], dim=2)
    digits = torch.stack([where // _BASE, where % _BASE], dim=3).flatten(2).to(rows.dtype)
    kind = torch.full_like(digits[..., :1], _IMAGE if is_image else _VIDEO)
    return torch.cat([rows, digits, kind], dim=2)


def _numbered(length: int, device: torch.device) -> torch.Tensor:
    """Return `[length, 2]`, the number of each row of a run and how many there are."""
    number = torch.arange(length, device=device)
    return torch.stack([number, torch.full_like(number, length)], dim=1)


def as_placed(rows: torch.Tensor, is_image: bool) -> torch.Tensor:
    """Return `[N, D + 11]` of `[N, D]` rows of an image (or of a video) that keeps everything."""
    nowhere = torch.zeros(1, len(rows), 3, dtype=torch.int64, device=rows.device)
    marked = with_places(rows.unsqueeze(0), nowhere)[0]
    marked[:, -1] = _IMAGE_STAYS if is_image else _OTHER_STAYS
    return marked


def split(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows `[n, D]` and digits `[n, 11]` of `[n, D + 11]`."""
    return rows[:, :-DIGITS], rows[:, -DIGITS:]


def fill(
    positions: torch.Tensor,
    parts: Sequence[torch.Tensor],
    images: Sequence[tuple[int, int]],
    videos: Sequence[tuple[int, int]],
    computed: int,
) -> None:
    """Write the positions of the media rows that a step feeds, in place.

    Args:
        positions: `[3, prompt]` int64.
        parts: the digits `[n, 11]` of each image or video that the step feeds rows of, in order, on
            the CPU.
        images: start and length of each run of image tokens in the prompt, ascending. Before each
            one stands a token that is neither of an image nor of a video.
        videos: the same of video tokens.
        computed: tokens before the step. A drafter's step starts one token later.
    """
    rest = [iter(run for run in runs if sum(run) > computed) for runs in (images, videos)]
    for part in _by_run(parts):
        kind, (row, keep) = int(part[0, -1]), part[0, 3:5].tolist()
        if kind == _OTHER_STAYS:
            continue
        runs = rest[kind == _VIDEO]
        start = next((run[0] for run in runs if _may_start(run, row, keep, computed)), None)
        if kind == _IMAGE_STAYS:
            continue
        assert start is not None, "the prompt was checked for what could hide an image"
        base = positions[0, start - 1] + 1 if start else 0
        first = start + row
        places = part[:, :3].T.to(positions.device)
        positions[:, first : first + len(part)] = base + places


def _by_run(parts: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Yield the numbers `[n, 6]` of the rows of each run: time, row and column, its number in the
    run, the length of the run, and the kind."""
    for part in parts:
        digits = part.long()
        numbers = torch.cat([digits[:, :-1:2] * _BASE + digits[:, 1:-1:2], digits[:, -1:]], dim=1)
        begins = (numbers[1:, 3] == 0).nonzero().flatten() + 1
        yield from numbers.tensor_split(begins)


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
    index: torch.Tensor
    """`[pruned prompt]` int64: where each token of the pruned prompt is in it. The rows of a pruned
    image are its first ones there; `fill` moves them."""


def unpruned(
    tokens: Sequence[int], media: Sequence[tuple[int, int, int]], filler: int = 0
) -> Unpruned:
    """Return the unpruned prompt of a pruned one.

    Args:
        tokens: of the pruned prompt.
        media: of each run, by offset: its offset, its length, and its length unpruned.
        filler: the token of a run of which nothing is left.
    """
    whole: list[int] = []
    index: list[int] = []
    end = 0
    for offset, length, original in media:
        index += range(len(whole), len(whole) + offset - end)
        whole += tokens[end:offset]
        index += range(len(whole), len(whole) + length)
        whole += tokens[offset : offset + length]
        whole += [tokens[offset] if length else filler] * (original - length)
        end = offset + length
    index += range(len(whole), len(whole) + len(tokens) - end)
    whole += tokens[end:]
    return Unpruned(whole, torch.tensor(index))
