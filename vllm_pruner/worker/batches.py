"""How images are batched for the tower and grouped for selection.

A portion holds the images that the tower may encode at once, a batch those that it encodes in one
call, a group those that are selected in one call. Batches are in order; the images of a group may
be anywhere in their batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby, pairwise

import torch

from vllm_pruner.layout.joined_frames import Between
from vllm_pruner.layout.layout import Layout
from vllm_pruner.methods import foreign
from vllm_pruner.methods.faults import MethodFault
from vllm_pruner.plan import ImagePlan
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.tower import EncoderImage

__all__ = ["Batch", "Group", "batches"]

_ALIGNED = 16
"""Alignment in bytes that a kernel's widest loads need."""


@dataclass(frozen=True, slots=True)
class Group:
    """The images of a batch that have the same layout and settings, and of joined frames the same
    tokens between them."""

    layout: Layout
    config: PruneConfig
    keep: int
    """Tokens kept of each image."""

    rows: int
    """Rows of each image in the tower's output."""

    small_grid: tuple[int, int] | None = None
    """See `Batch.small_grid`."""

    texts: list[tuple[int, ...]] = field(default_factory=list)
    """The `ImagePlan.text` of each image."""

    plans: list[ImagePlan] = field(default_factory=list)

    places: list[int] = field(default_factory=list)
    """Index of each image in its batch."""

    starts: list[int] = field(default_factory=list)
    """Index of each image's first row among the rows of the batch."""

    @property
    def key(self) -> tuple[Layout, PruneConfig, int, Between]:
        """What its images share."""
        return self.layout, self.config, self.keep, self.between

    @property
    def between(self) -> Between:
        """See `ImagePlan.between`."""
        return self.plans[0].between

    @property
    def foreign(self) -> bool:
        """Whether another package provides the method."""
        return self.plans[0].package is not None

    def of(self, column: torch.Tensor) -> torch.Tensor:
        """Return the group's part `[images, rows, ...]` of a batch's column `[all rows, ...]`.

        A view if the images are adjacent and their first row is aligned; else a copy, because
        Triton compiles another variant of a kernel for unaligned addresses.
        """
        first, last = self.starts[0], self.starts[-1] + self.rows
        begins = first * column.stride(0) * column.element_size()
        if last - first == self.rows * len(self.starts) and begins % _ALIGNED == 0:
            return column[first:last].view(-1, self.rows, *column.shape[1:])
        return torch.stack([column[start : start + self.rows] for start in self.starts])


@dataclass(frozen=True, slots=True)
class Batch:
    """Images that the tower encodes together, with their plans."""

    images: list[EncoderImage]
    plans: list[ImagePlan]
    small_grid: tuple[int, int] | None
    """Rows and columns of patches to which all images are shrunk; None if they are not."""

    before_tower: bool
    """Whether their method chooses `before_tower`."""

    def groups(self) -> list[Group]:
        """Return the groups of images that can be selected together."""
        ends = [0, *accumulate(map(self._rows, self.images))]
        groups: list[Group] = []
        for place, (image, plan) in enumerate(zip(self.images, self.plans, strict=True)):
            keep = plan.kept_of(image.layout.tokens)
            key = image.layout, plan.config, keep, plan.between
            alike = (group for group in groups if group.key == key)
            if (group := next(alike, None)) is None:
                group = Group(image.layout, plan.config, keep, self._rows(image), self.small_grid)
                groups.append(group)
            group.texts.append(plan.text)
            group.plans.append(plan)
            group.places.append(place)
            group.starts.append(ends[place])
        return groups

    def _rows(self, image: EncoderImage) -> int:
        """Return the number of rows in the tower's output for an image, possibly shrunk."""
        if self.small_grid is None:
            return image.layout.encoded
        return self.small_grid[0] * self.small_grid[1]


def batches(
    images: Sequence[EncoderImage], plans: Sequence[ImagePlan], rows_at_once: int
) -> Iterator[Batch]:
    """Yield the batches of images.

    Args:
        images: the images, in the order of the prompt.
        plans: one for each image.
        rows_at_once: most rows of the tower's output in a batch; an image with more rows is a
            batch by itself.
    """
    for start, end in pairwise(_bounds(images, rows_at_once)):
        pairs = zip(images[start:end], plans[start:end], strict=True)
        for (grid, early), batch in groupby(pairs, key=_before_tower):
            same_size, their_plans = zip(*batch, strict=True)
            yield Batch(list(same_size), list(their_plans), grid, early)


def _bounds(images: Sequence[EncoderImage], rows_at_once: int) -> list[int]:
    """Return the first image of each portion of at most `rows_at_once` rows, then the number of
    images."""
    bounds, rows = [0], 0
    for place, image in enumerate(images):
        if rows and rows + image.layout.encoded > rows_at_once:
            bounds.append(place)
            rows = 0
        rows += image.layout.encoded
    return [*bounds, len(images)]


def _before_tower(pair: tuple[EncoderImage, ImagePlan]) -> tuple[tuple[int, int] | None, bool]:
    """Return what an image's method does before the tower runs: the grid that it shrinks the image
    to, and whether it chooses."""
    config = pair[1].config
    return _small_grid(pair), config.resolved[0].before_tower and not config.off


def _small_grid(pair: tuple[EncoderImage, ImagePlan]) -> tuple[int, int] | None:
    """Return the grid of patches that an image's method shrinks it to, or None."""
    image, plan = pair
    method, _ = plan.config.resolved
    if method.shrink is None or plan.config.off:
        return None
    keep = plan.kept_of(image.layout.tokens)
    if plan.package is None:
        return method.shrink(keep)
    try:
        return foreign.shrink(method, keep)
    except MethodFault:
        return None  # `select` will still be called, with all tokens
