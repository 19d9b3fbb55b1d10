"""The interface of a vision tower, as pruning uses it.

A tower returns rows, image by image; `Layout.encoded` is their number. Each row has columns: the
features, and one for everything in the tower that methods read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from torch import nn

    from vllm_pruner.layout.layout import Layout
    from vllm_pruner.methods.base import Need

__all__ = [
    "FEATURES",
    "VIDEO_PIXELS",
    "CapturedTower",
    "Columns",
    "EncoderImage",
    "Pad",
    "ShrinkingTower",
    "ThinTower",
    "Tower",
]

FEATURES = "features"
"""The column that is always returned, besides those of the `Need`s that are asked for."""

VIDEO_PIXELS = frozenset({"pixel_values_videos", "pixel_values_flat_video"})
"""The field with a video's pixels, by vLLM's name of it in any model."""

Columns = dict[str, "torch.Tensor"]
"""`[rows, ...]` by field of `VisualTokens`; a score is `[rows]`."""


Pad = Callable[["torch.Tensor", "torch.Tensor"], None]
"""`pad(buffer, values)`: writes a batch's values into the larger buffer of a CUDA graph."""


@dataclass(frozen=True, slots=True, eq=False)
class EncoderImage:
    """An image as it enters the vision tower."""

    pixels: torch.Tensor
    """In the shape that the family's `Tower` takes."""

    layout: Layout
    """Where its tokens go in the decoder's sequence."""


class Tower(Protocol):
    """Runs one model's vision tower and reads its attention."""

    module: nn.Module
    """vLLM's module of the tower."""

    page: int
    """Rows in one slot of the feature cache: those of a crop, or a small block of an image of
    variable size."""

    own_width: int | None
    """Width of the features' leading part that methods compare; None for all of it."""

    patches_per_row: int
    """Patches in the tower's layers for each row that it returns: more than one with a merger."""

    def project(self, rows: torch.Tensor) -> torch.Tensor:
        """Return features `[..., D]` in the decoder's space."""
        ...

    def columns(self, needs: frozenset[Need]) -> dict[str, tuple[int, torch.dtype]]:
        """Return width and dtype of each column, for the features and `needs`; a score has width
        0."""
        ...

    def encode(self, images: Sequence[EncoderImage], needs: frozenset[Need]) -> Columns:
        """Return the features and at least the columns of `needs` (float32), over all heads.

        Args:
            images: the batch; images may differ in size.
            needs: a subset of `CAPTURED`; `MERGER_NORM` only of a family with a `merger`.
        """
        ...


class ShrinkingTower(Tower, Protocol):
    """A tower that can encode images smaller than they are."""

    def encode_small(
        self, images: Sequence[EncoderImage], needs: frozenset[Need], grid: tuple[int, int]
    ) -> Columns:
        """Return what `encode` does of images shrunk to `grid` rows and columns of patches."""
        ...


class ThinTower(Tower, Protocol):
    """A tower that can encode some of its images' tokens alone."""

    def encode_some(
        self, images: Sequence[EncoderImage], kept: torch.Tensor, lengths: Sequence[int]
    ) -> torch.Tensor:
        """Return the rows `[tokens, D]` of some tokens, each at its place in its picture.

        Args:
            images: the batch; their pixels are `[patches, values]`, token by token.
            kept: `[tokens]` int64, ascending: indices among the tokens of all images.
            lengths: how many of them each image has.
        """
        ...


class CapturedTower(Tower, Protocol):
    """A tower whose forward pass can be captured in CUDA graphs: `inputs` prepares it, with the
    host where needed, and `run` then has no host sync."""

    padding: Mapping[str, Pad | None]
    """How each input is written into a graph's buffer; None pads it with zeros."""

    def captures(self, image: EncoderImage) -> bool:
        """Return whether graphs cover images of this kind, unless too large."""
        ...

    def graph_rows(self, at_most: int) -> list[int]:
        """Return the numbers of rows to capture a graph for, ascending: at least one number, and
        only the first may exceed `at_most`."""
        ...

    def inputs(
        self, images: Sequence[EncoderImage], room: int | None = None
    ) -> dict[str, torch.Tensor]:
        """Return what `run` takes for a batch.

        Args:
            images: images that `captures` accepts.
            room: the number of images for which the graph's buffers have room; None outside one.
        """
        ...

    def blank(
        self, rows: int, images: int, device: torch.device, dtype: torch.dtype
    ) -> dict[str, torch.Tensor]:
        """Return inputs to capture with, large enough for batches of up to `rows` and `images`."""
        ...

    def run(self, inputs: dict[str, torch.Tensor], needs: frozenset[Need]) -> Columns:
        """Return the columns of a batch, followed by the rows of its padding."""
        ...
