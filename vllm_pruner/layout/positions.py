"""Rotary positions of several dimensions (M-RoPE) for prompts whose images or videos are pruned.

A stock model derives the positions of a prompt from the grids of its images: text after an image
continues where the image's grid ends, however few of its tokens are kept. So the positions of text,
and of images that keep everything, are those of the unpruned prompt (`unpruned_prompt`) and follow
from the prompt alone. Which tokens a pruned image keeps is known only once it has been encoded, so
its rows carry their places along: eleven trailing columns of digits (`with_places`). They are split
off again, and the positions are written for exactly the rows that a step feeds (`fill`).

Nothing depends on earlier steps, so a prefix-cache hit or a chunk boundary may be anywhere, and
filling twice gives the same result.

Everything about images also applies to a video whose tokens form one run, be it with other tokens
among them (`joined_frames`), and to each frame of a video whose frames form runs of their own.

Digits are base 256, two per number, because bfloat16 represents integers up to 256 exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

__all__ = [
    "DIGITS",
    "MOST",
    "as_placed",
    "fill",
    "split",
    "with_lumped_places",
    "with_places",
]

DIGITS = 11
"""Trailing columns, two each for: time, row, column, the row's index in its run, and the run's
length; then one for the kind, below."""

_BASE = 256
MOST = _BASE**2 - 1
"""The largest number that two digits hold."""

_IMAGE, _VIDEO, _IMAGE_STAYS, _OTHER_STAYS = range(4)
"""The kinds of row: kept of a pruned image; kept of a pruned video; of an unpruned image, which
keeps its position; of anything else unpruned."""


def with_places(
    rows: torch.Tensor, places: torch.Tensor, is_image: bool = True, runs: Sequence[int] = ()
) -> torch.Tensor:
    """Return kept rows with their places appended, `[images, keep, D + 11]`.

    Args:
        rows: `[images, keep, D]`, in any float dtype.
        places: `[images, keep, 3]` int64, time, row and column within the image, each < 65,536.
        is_image: False for a video.
        runs: how many rows each run of the prompt has; by default, all rows are one run.
    """
    device = rows.device
    of_run = torch.cat([_numbered(length, device) for length in runs or [rows.shape[1]] if length])
    where = torch.cat([places, of_run.expand(len(rows), -1, -1)], dim=2)
    kind = torch.full_like(where[..., :1], _IMAGE if is_image else _VIDEO)
    return _with_digits(rows, where, kind)


def with_lumped_places(
    rows: torch.Tensor, places: torch.Tensor, is_mark: torch.Tensor, is_kept: torch.Tensor
) -> torch.Tensor:
    """Return the rows of a video with text among them, with their places appended, `[N, D + 11]`.

    Its prompt has all kept tokens in the first frame, as one run, and the text of the other frames
    behind it. Rows before that run are text, which keeps its positions; those behind it are
    numbered on.

    Args:
        rows: `[N, D]`, in any float dtype.
        places: `[N, 3]` int64, time, row and column, counted from the first row.
        is_mark: `[N]` int64, 1 for the token before each frame, else 0.
        is_kept: `[N]` int64, 1 for rows of the video, 0 for text.
    """
    mark = is_mark.argmax()
    index = torch.arange(len(rows), device=rows.device) - mark - 1
    stays = index < 0
    index = index.masked_fill(stays, 1)  # not 0, with which a run begins
    of_run = torch.stack([index, is_kept.sum().expand(len(rows))], dim=1)
    where = torch.cat([(places - places[mark] - 1).clamp(min=0), of_run], dim=1)
    kind = torch.where(stays, _OTHER_STAYS, _VIDEO).unsqueeze(1)
    return _with_digits(rows, where, kind)


def _with_digits(rows: torch.Tensor, where: torch.Tensor, kind: torch.Tensor) -> torch.Tensor:
    """Return rows `[..., D]` with the digits of five numbers each, and their kind, appended."""
    digits = torch.stack([where // _BASE, where % _BASE], dim=-1).flatten(-2)
    return torch.cat([rows, digits.to(rows.dtype), kind.to(rows.dtype)], dim=-1)


def _numbered(length: int, device: torch.device) -> torch.Tensor:
    """Return `[length, 2]`, the index of each row in its run and the run's length."""
    number = torch.arange(length, device=device)
    return torch.stack([number, torch.full_like(number, length)], dim=1)


def as_placed(rows: torch.Tensor, is_image: bool) -> torch.Tensor:
    """Return `[N, D + 11]`, the rows `[N, D]` of an unpruned image or video, so marked."""
    nowhere = torch.zeros(1, len(rows), 3, dtype=torch.int64, device=rows.device)
    marked = with_places(rows.unsqueeze(0), nowhere)[0]
    marked[:, -1] = _IMAGE_STAYS if is_image else _OTHER_STAYS
    return marked


def split(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Split `[n, D + 11]` into rows `[n, D]` and digits `[n, 11]`."""
    return rows[:, :-DIGITS], rows[:, -DIGITS:]


def fill(
    positions: torch.Tensor,
    parts: Sequence[torch.Tensor],
    images: Sequence[tuple[int, int]],
    videos: Sequence[tuple[int, int]],
    computed: int,
) -> None:
    """Write the positions of the image and video rows that a step feeds, in place.

    Args:
        positions: `[3, prompt]` int64.
        parts: the digits `[n, 11]` of each image or video that the step feeds rows of, in order, on
            the CPU.
        images: start and length of each run of image tokens in the prompt, ascending. The token
            before a run belongs to neither an image nor a video.
        videos: the same for video tokens.
        computed: tokens computed before the step. A drafter's step starts one token later.
    """
    rest = [iter(images), iter(videos)]
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
    """Yield, for each run, its rows' numbers `[n, 6]`: time, row, column, index in the run, length
    of the run, and kind."""
    for part in parts:
        digits = part.long()
        numbers = torch.cat([digits[:, :-1:2] * _BASE + digits[:, 1:-1:2], digits[:, -1:]], dim=1)
        begins = (numbers[1:, 3] == 0).nonzero().flatten() + 1
        yield from numbers.tensor_split(begins)


def _may_start(run: tuple[int, int], row: int, keep: int, computed: int) -> bool:
    """Return whether a step can feed a run of `keep` rows from its `row` on: either it starts at
    that row, which may be one of the text behind the run, or before the run and `row` is 0. (Among
    runs of one row, a drafter's step may get the previous run; it then rewrites positions of the
    target model's last step.)"""
    start, length = run
    begins = start >= computed if row == 0 else start + row in (computed, computed + 1)
    return length == keep and begins
