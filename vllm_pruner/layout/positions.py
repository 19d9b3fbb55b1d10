"""Rotary positions of several dimensions (M-RoPE) for prompts whose images or videos are pruned.

A stock model derives the positions of a prompt from the grids of its images: text after an image
continues where the image's grid ends, however few of its tokens are kept. So the positions of text,
and of images that keep everything, are those of the unpruned prompt (`unpruned_prompt`) and follow
from the prompt alone. Which tokens a pruned image keeps is known only once it has been encoded, so
its rows carry their places along: eleven trailing columns of digits (`placed_rows`). They are split
off again, and the positions are written for exactly the rows that a step feeds (`fill`).

Nothing depends on earlier steps, so a prefix-cache hit or a chunk boundary may be anywhere, and
filling twice gives the same result.

Everything about images also applies to a video whose tokens form one run, be it with other tokens
among them (`joined_frames`), and to each frame of a video whose frames form runs of their own.

Digits are base 256, two per number, because bfloat16 represents integers up to 256 exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum

import torch

from vllm_pruner.methods.on_device import sent

__all__ = ["BASE", "DIGITS", "MOST", "Kind", "fill", "split"]

DIGITS = 11
"""Trailing columns, two each for: time, row, column, the row's index in its run, and the run's
length; then one for the kind, below."""

BASE = 256
MOST = BASE**2 - 1
"""The largest number that two digits hold."""


class Kind(IntEnum):
    """The kinds of row: kept of a pruned image; kept of a pruned video; of an unpruned image, which
    keeps its position; of anything else unpruned."""

    IMAGE = 0
    VIDEO = 1
    IMAGE_STAYS = 2
    OTHER_STAYS = 3


def split(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Split `[n, D + 11]` into rows `[n, D]` and digits `[n, 11]`."""
    return rows[:, :-DIGITS], rows[:, -DIGITS:]


def fill(
    positions: torch.Tensor,
    parts: Sequence[torch.Tensor],
    images: Sequence[tuple[int, int]],
    videos: Sequence[tuple[int, int]] | None,
    computed: int,
    lead: int = 1,
) -> None:
    """Write the positions of the image and video rows that a step feeds, in place.

    Args:
        positions: `[3, prompt]` int64.
        parts: the digits `[n, 11]` of each image or video that the step feeds rows of, in order, on
            the CPU.
        images: start and length of each run of image tokens in the prompt, ascending. The token
            before a run belongs to neither an image nor a video.
        videos: the same for video tokens; None if images and videos have one token, so that
            `images` are the runs of both. Unpruned videos then have the kind of unpruned images.
        computed: tokens computed before the step. A drafter's step starts one token later.
        lead: how far behind the time of the token before a run its first place is.
    """
    of_images = iter(images)
    rest = [of_images, of_images if videos is None else iter(videos)]
    for part in _by_run(parts):
        kind, (row, keep) = int(part[0, -1]), part[0, 3:5].tolist()
        if kind == Kind.OTHER_STAYS:
            continue
        runs = rest[kind == Kind.VIDEO]
        start = next((run[0] for run in runs if _may_start(run, row, keep, computed)), None)
        if kind == Kind.IMAGE_STAYS:
            continue
        assert start is not None, "the prompt was checked for what could hide an image"
        base = positions[0, start - 1] + lead if start else 0
        first = start + row
        places = sent(part[:, :3].T, positions.device)
        positions[:, first : first + len(part)] = base + places


def _by_run(parts: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Yield, for each run, its rows' numbers `[n, 6]`: time, row, column, index in the run, length
    of the run, and kind."""
    for part in parts:
        digits = part.long()
        numbers = torch.cat([digits[:, :-1:2] * BASE + digits[:, 1:-1:2], digits[:, -1:]], dim=1)
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
