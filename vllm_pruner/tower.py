"""What a vision tower does for pruning, whichever it is.

A tower makes rows: one for each patch of an image as `Layout.encoded` counts them, image by image.
Beside the features there is a column for everything in the tower that methods look at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from torch import nn

    from vllm_pruner.layout.layout import Layout
    from vllm_pruner.methods.base import Need

__all__ = ["FEATURES", "Columns", "EncoderImage", "Tower"]

FEATURES = "features"
"""The column that is always made, beside those of the `Need`s that are asked for."""

Columns = dict[str, "torch.Tensor"]
"""`[rows, ...]` by field of `VisualTokens`; a score has no further axis."""


@dataclass(frozen=True, slots=True, eq=False)
class EncoderImage:
    """An image as it enters the vision tower."""

    pixels: torch.Tensor
    """As the family's `Tower` takes them."""

    layout: Layout
    """Where its tokens go in the decoder's sequence."""


class Tower(Protocol):
    """Runs one model's vision tower and reads its attention."""

    module: nn.Module
    """vLLM's: its size, device and dtype are the tower's."""

    page: int
    """Rows that the feature cache keeps in one slot: a crop's, or a few of an image of any size."""

    own_width: int | None
    """Columns of the features that methods compare, if a token has more that go with it."""

    patches_per_row: int
    """Patches that the tower's layers work on for each row: more than one before a merger."""

    def project(self, rows: torch.Tensor) -> torch.Tensor:
        """Return features `[..., D]` in the decoder's space."""
        ...

    def columns(self, needs: frozenset[Need]) -> dict[str, tuple[int, torch.dtype]]:
        """Return width and dtype of a row in the features and in what `needs` says; a score has
        width 0."""
        ...

    def encode(
        self,
        images: Sequence[EncoderImage],
        needs: frozenset[Need],
        small_grid: tuple[int, int] | None = None,
    ) -> Columns:
        """Return the features and at least what `needs` says (float32), over all heads.

        Args:
            images: may differ in size.
            needs: any of `TOWER`.
            small_grid: rows and columns of patches that all images are shrunk to.
        """
        ...
