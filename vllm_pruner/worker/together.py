"""Groups of images that one call of a method selects from, though they are of unequal length.

Where images have sizes of their own (Qwen-VL), hardly two of a batch have the same layout, and a
call for each is some ten launches each. A method that is `ragged` takes all images of one class of
sizes at once, padded to the longest. Each image keeps the same tokens as alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.methods.base import Kept, VisualTokens
from vllm_pruner.methods.ragged import Ragged

if TYPE_CHECKING:
    from vllm_pruner.worker.batches import Group

__all__ = ["apart", "padded", "together"]

_LEAST_CLASS = 64
"""Up to so many tokens, images are of one class, as for the kernels; above, between two powers of
two. So padding makes a Gram matrix four times as large at most."""


def together(groups: Sequence[Group]) -> list[list[int]]:
    """Return the places of the groups that are selected in one call, call by call."""
    calls: dict[Hashable, list[int]] = defaultdict(list)
    for place, group in enumerate(groups):
        calls[_key(group) or place].append(place)
    return list(calls.values())


def _key(group: Group) -> Hashable:
    """Return what groups of one call have in common; None for a group that is a call of its own."""
    layout, config = group.layout, group.config
    if config.off or group.foreign or group.small_grid is not None:
        return None
    method, options = config.resolved
    if not isinstance(layout, GridLayout) or layout.frames or not method.ragged:
        return None
    return method.name, options, (max(_LEAST_CLASS, layout.tokens) - 1).bit_length()


def padded(tokens: Sequence[VisualTokens], groups: Sequence[Group]) -> VisualTokens:
    """Return the images of all groups as one batch, group by group, padded at the end.

    Args:
        tokens: of each group, with equal fields and without `grid`.
        groups: theirs.
    """
    lengths = tuple(each.features.shape[1] for each in tokens)
    numbers = [len(each.features) for each in tokens]
    images, longest = sum(numbers), max(lengths)

    def joined(name: str) -> Any:
        parts = [getattr(each, name) for each in tokens]
        if parts[0] is None:
            return None
        whole = parts[0].new_zeros((images, longest, *parts[0].shape[2:]))
        for part, length, rows in zip(parts, lengths, whole.split(numbers), strict=True):
            rows[:, :length] = part
        return whole

    text = None if tokens[0].text is None else [row for each in tokens for row in each.text or ()]
    ragged = Ragged(
        tuple(
            length for length, number in zip(lengths, numbers, strict=True) for _ in range(number)
        ),
        tuple(
            group.keep for group, number in zip(groups, numbers, strict=True) for _ in range(number)
        ),
    )
    names = ("features", "importance", "projected", "keys", "received", "received_midway")
    return replace(
        tokens[0], **{name: joined(name) for name in names}, text=text, grid=None, ragged=ragged
    )


def apart(index: torch.Tensor, groups: Sequence[Group]) -> list[Kept]:
    """Return what each group keeps, of the `[images, keep]` of all; the inverse of `padded`."""
    rows = index.split([len(group.plans) for group in groups])
    return [Kept(some[:, : group.keep]) for some, group in zip(rows, groups, strict=True)]
