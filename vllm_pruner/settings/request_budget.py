"""Divide one budget among all images of a request: more of it for pictures that show more.

A visual token of print weighs 4, one of a plain area 1/4, any other 1. An image's share depends on
the other images; its plan gets the share as a number of tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vllm_pruner.picture import Picture

__all__ = ["divided", "weight"]

_PRINT, _PLAIN = 4.0, 0.25
_FINE = 1 << 16
"""Weights are integers in units of 1 / `_FINE`, so that shares are exact."""


def weight(picture: Picture, tokens: int, times: float = 1.0) -> int:
    """Return the weight of an image, an integer of at least 1.

    Args:
        picture: what the image shows.
        tokens: its visual tokens, unpruned.
        times: factor for its detail level.
    """
    plain = min(picture.plain, 1 - picture.text)
    other = 1 - picture.text - plain
    return max(1, round(_FINE * times * tokens * (_PRINT * picture.text + other + _PLAIN * plain)))


def divided(
    budget: int, weights: Sequence[int], tokens: Sequence[int], least: int = 1
) -> list[int]:
    """Divide a budget among images in proportion to their weights, in exact arithmetic.

    Args:
        budget: tokens for all images together.
        weights: the weight of each image, at least 1.
        tokens: visual tokens of each image, unpruned: the most that it gets.
        least: the fewest tokens that an image gets; a smaller image gets all of its tokens.

    Returns:
        Shares that add up to the budget, clamped to what is possible under these bounds. The
        remainder of rounding goes to the largest fractions, of equal ones to the first.
    """
    bounds = [(min(least, count), count) for count in tokens]
    left = min(max(budget, sum(low for low, _ in bounds)), sum(tokens))
    shares: dict[int, int] = {}
    while free := [place for place in range(len(tokens)) if place not in shares]:
        room, total = left - sum(shares.values()), sum(weights[place] for place in free)
        low = {i: bounds[i][0] * total - room * weights[i] for i in free}
        high = {i: room * weights[i] - bounds[i][1] * total for i in free}
        lacking, over = (sum(filter(_positive, each.values())) for each in (low, high))
        if not lacking and not over:
            dues = {place: divmod(room * weights[place], total) for place in free}
            shares |= _rounded(dues, room)
        elif lacking >= over:  # as CSS resolves flexible lengths: freeze the larger violations
            shares |= {place: bounds[place][0] for place in free if low[place] > 0}
        if over >= lacking > 0 or over > lacking:
            shares |= {place: bounds[place][1] for place in free if high[place] > 0}
    return [shares[place] for place in range(len(tokens))]


def _positive(number: int) -> bool:
    return number > 0


def _rounded(dues: Mapping[int, tuple[int, int]], room: int) -> dict[int, int]:
    """Return shares that add up to `room`, given quotients and remainders by place."""
    shares = {place: whole for place, (whole, _) in dues.items()}
    by_remainder = sorted(dues, key=lambda place: (-dues[place][1], place))
    for place in by_remainder[: room - sum(shares.values())]:
        shares[place] += 1
    return shares
