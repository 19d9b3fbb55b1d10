"""Select from groups of images of unequal length in one call of the method.

In families with dynamic resolution (Qwen-VL, LLaVA-NeXT), hardly two images of a batch have the
same layout, and a call per layout costs some ten kernel launches. A method that is `ragged` takes
all images of one size class at once, padded to the longest. Each image keeps the same tokens as
alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from vllm_pruner.layout.crop_budget import is_one_list, method_share, with_own, with_own_of_many
from vllm_pruner.methods.base import Kept, Need, VisualTokens
from vllm_pruner.methods.ragged import Ragged
from vllm_pruner.methods.texts import Texts
from vllm_pruner.tower import FEATURES

if TYPE_CHECKING:
    from vllm_pruner.worker.batches import Group

__all__ = ["apart", "padded", "share_of", "together"]

_LEAST_CLASS = 64
"""Images of up to this many tokens are one size class, as in the kernels; above, each class spans a
power of two, so padding makes a Gram matrix at most four times as large."""


def together(groups: Sequence[Group]) -> list[list[int]]:
    """Partition the groups into calls; return the indices of each call's groups."""
    calls: dict[Hashable, list[int]] = defaultdict(list)
    for place, group in enumerate(groups):
        calls[_key(group) or place].append(place)
    return list(calls.values())


def _key(group: Group) -> Hashable:
    """Return the key that groups of one call share; None for a group that needs its own call."""
    layout, config = group.layout, group.config
    if config.off or group.foreign or group.small_grid is not None:
        return None
    method, options = config.resolved
    if not (is_one_list(config, layout) and method.ragged):
        return None
    return method.name, options, (max(_LEAST_CLASS, layout.patches) - 1).bit_length()


def padded(tokens: Sequence[VisualTokens], groups: Sequence[Group]) -> VisualTokens:
    """Return the images of all groups as one batch, group by group, padded at the end.

    Args:
        tokens: the tokens of each group. Of their fields only those that the method needs are
            joined: images whose tokens are interpolated are projected whatever it needs.
        groups: the groups, in the same order.
    """
    lengths = tuple(each.features.shape[1] for each in tokens)
    numbers = [len(each.features) for each in tokens]
    images, longest = sum(numbers), max(lengths)
    needs = groups[0].config.resolved[0].needs

    def joined(name: str) -> Any:
        if name not in needs and name != FEATURES:
            return None
        parts = [getattr(each, name) for each in tokens]
        whole = parts[0].new_zeros((images, longest, *parts[0].shape[2:]))
        for part, length, rows in zip(parts, lengths, whole.split(numbers), strict=True):
            rows[:, :length] = part
        return whole

    text = tokens[0].text if Need.TEXT in needs else None
    if text is not None:
        assert tokens[0].projected is not None
        text = Texts.of([one for each in tokens for one in each.text or ()], tokens[0].projected)
    ragged = Ragged.of(
        [length for length, number in zip(lengths, numbers, strict=True) for _ in range(number)],
        [share_of(group) for group in groups for _ in group.plans],
        tokens[0].features.device,
    )
    names = (FEATURES, "importance", "projected", "keys", "received", "received_midway")
    return replace(
        tokens[0], **{name: joined(name) for name in names}, text=text, grid=None, ragged=ragged
    )


def share_of(group: Group) -> int:
    """Return how many tokens of an image the method chooses; see `method_share`."""
    return method_share(group.layout, group.keep)


def apart(
    index: torch.Tensor,
    joined: VisualTokens,
    tokens: Sequence[VisualTokens],
    groups: Sequence[Group],
) -> list[Kept]:
    """Return what each group keeps.

    Args:
        index: `[images, most]`, what the method chose of all groups.
        joined: the tokens of all groups, as `padded` returns them.
        tokens: the tokens of each group.
        groups: the groups.
    """
    numbers = [len(group.plans) for group in groups]
    every = [group for group, number in zip(groups, numbers, strict=True) for _ in range(number)]
    method, _ = groups[0].config.resolved
    layouts, keeps = [group.layout for group in every], [group.keep for group in every]
    kept = with_own_of_many(index, joined, method, layouts, keeps)
    if kept is not None:
        rows = kept.split(numbers)
        return [Kept(some[:, : group.keep]) for some, group in zip(rows, groups, strict=True)]
    rows = index.split(numbers)
    return [
        with_own(
            Kept(some[:, : share_of(group)]),
            own,
            method,
            group.layout,
            group.keep,
        )
        for some, own, group in zip(rows, tokens, groups, strict=True)
    ]
