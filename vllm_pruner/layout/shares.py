"""Divide one budget among the parts of an image or video, alike for the prompt and the model."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

__all__ = ["frame_shares", "shares"]


def shares(sizes: Sequence[int], budget: int) -> list[int]:
    """Divide a budget of at most `sum(sizes)` in proportion to sizes.

    The shares add up to the budget and none exceeds its size. Ends are rounded down, so that of
    equal sizes the later ones get the remainder.
    """
    total = sum(sizes)
    ends = [0, *(budget * end // total for end in accumulate(sizes))]
    return [end - start for start, end in pairwise(ends)]


def frame_shares(frames: int, keep: int) -> list[int]:
    """Divide `keep` tokens equally among frames; the remainder goes to the first ones."""
    return [keep // frames + (frame < keep % frames) for frame in range(frames)]
