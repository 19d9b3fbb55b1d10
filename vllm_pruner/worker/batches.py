"""How the images of a batch are taken together.

A portion is what the tower may encode at once, a batch what it encodes in one call, a group what is
selected in one call. Images stay in order throughout, so that embeddings come out as they went in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from vllm_pruner.family import EncoderImage
from vllm_pruner.layout.crop_layout import CropLayout
from vllm_pruner.plan import ImagePlan
from vllm_pruner.settings.config import PruneConfig

__all__ = ["Batch", "Group", "batches"]


@dataclass(frozen=True, slots=True)
class Group:
    """Neighbours in a batch that have the same layout and settings."""

    layout: CropLayout
    config: PruneConfig
    texts: list[tuple[int, ...]]
    """Token ids of the text that asks about each image; see `ImagePlan.text`."""

    crops: slice
    """Where their crops are among all crops of the batch."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Images that the tower encodes together, with their plans."""

    images: list[EncoderImage]
    plans: list[ImagePlan]
    small_grid: tuple[int, int] | None
    """Rows and columns of patches that all of them are shrunk to; None if they are not."""

    def groups(self) -> Iterator[Group]:
        """Yield what can be selected together."""
        end = 0
        pairs = zip(self.images, self.plans, strict=True)
        for (layout, config), group in groupby(pairs, key=lambda p: (p[0].layout, p[1].config)):
            texts = [plan.text for _, plan in group]
            crops = slice(end, end := end + layout.crops * len(texts))
            yield Group(layout, config, texts, crops)


def batches(
    images: Sequence[EncoderImage], plans: Sequence[ImagePlan], crops_at_once: int
) -> Iterator[Batch]:
    """Yield the batches of images.

    Args:
        images: in the order of the prompt.
        plans: one for each image.
        crops_at_once: crops in a batch at most; an image of more is a batch of its own.
    """
    for start, end in pairwise(_bounds(images, crops_at_once)):
        pairs = zip(images[start:end], plans[start:end], strict=True)
        for grid, batch in groupby(pairs, key=_small_grid):
            same_size, their_plans = zip(*batch, strict=True)
            yield Batch(list(same_size), list(their_plans), grid)


def _bounds(images: Sequence[EncoderImage], crops_at_once: int) -> list[int]:
    """Return where portions of at most `crops_at_once` crops start, and the number of images."""
    bounds, crops = [0], 0
    for place, image in enumerate(images):
        if crops and crops + image.layout.crops > crops_at_once:
            bounds.append(place)
            crops = 0
        crops += image.layout.crops
    return [*bounds, len(images)]


def _small_grid(pair: tuple[EncoderImage, ImagePlan]) -> tuple[int, int] | None:
    """Return the grid of patches that an image's method shrinks it to, or None."""
    image, plan = pair
    method, _ = plan.config.resolved
    if method.shrink is None or plan.config.off:
        return None
    return method.shrink(plan.config.keep_count(image.layout.tokens))
