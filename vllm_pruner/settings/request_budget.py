"""One budget for all images of a request: more of it for pictures that show more.

A visual token of print weighs four, one of nothing a quarter, any other one; so the share of an
image depends on the others, and is its own number of tokens when its plan is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vllm_pruner.picture import Picture

__all__ = ["divided", "weight"]

_PRINT, _PLAIN = 4.0, 0.25
_FINE = 1 << 16
"""Weights are whole numbers of so many parts, so that shares are exact."""


def weight(picture: Picture, tokens: int, times: float = 1.0) -> int:
    """Return how much an image of `tokens` visual tokens counts.

    Args:
        picture: what it shows.
        tokens: unpruned.
        times: how much closer it is to be looked at.
    """
    plain = min(picture.plain, 1 - picture.text)
    other = 1 - picture.text - plain
    return max(1, round(_FINE * times * tokens * (_PRINT * picture.text + other + _PLAIN * plain)))


def divided(
    budget: int, weights: Sequence[int], tokens: Sequence[int], least: int = 1
) -> list[int]:
    """Divide a budget over images in proportion to their weights, exactly.

    Args:
        budget: tokens of all images.
        weights: of each image, 1 or more.
        tokens: of each image, unpruned: none gets more.
        least: tokens that each gets at least, or all of a smaller one.

    Returns:
        Shares that add up to the budget, or to what images have and need where it is beyond that.
        What rounding leaves over goes where most was cut off, to the first of equals.
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
        elif lacking >= over:  # as browsers lay out flexible boxes: what has to give way, first
            shares |= {place: bounds[place][0] for place in free if low[place] > 0}
        if over >= lacking > 0 or over > lacking:
            shares |= {place: bounds[place][1] for place in free if high[place] > 0}
    return [shares[place] for place in range(len(tokens))]


def _positive(number: int) -> bool:
    return number > 0


def _rounded(dues: Mapping[int, tuple[int, int]], room: int) -> dict[int, int]:
    """Whole numbers that add up to `room`, of quotients and remainders by place."""
    shares = {place: whole for place, (whole, _) in dues.items()}
    by_remainder = sorted(dues, key=lambda place: (-dues[place][1], place))
    for place in by_remainder[: room - sum(shares.values())]:
        shares[place] += 1
    return shares
