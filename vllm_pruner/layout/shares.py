"""Divide one budget over the parts of an image or video. The prompt and the model both do, and
agree."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

__all__ = ["frame_shares", "shares"]


def shares(sizes: Sequence[int], budget: int) -> list[int]:
    """Divide a budget in proportion to sizes. The shares add up to it and none exceeds its size.

    Shares are rounded so that earlier crops get less and later ones more.
    """
    total = sum(sizes)
    ends = [0, *(budget * end // total for end in accumulate(sizes))]
    return [end - start for start, end in pairwise(ends)]


def frame_shares(frames: int, keep: int) -> list[int]:
    """Return how many tokens each frame keeps of `keep`: equally many, one more in the first."""
    return [keep // frames + (frame < keep % frames) for frame in range(frames)]
