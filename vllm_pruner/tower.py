"""What a vision tower does for pruning, whichever it is.

A tower makes rows: one for each patch of an image as `Layout.encoded` counts them, image by image.
Beside the features there is a column for everything in the tower that methods look at.
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

__all__ = ["FEATURES", "CapturedTower", "Columns", "EncoderImage", "Pad", "Tower"]

FEATURES = "features"
"""The column that is always made, beside those of the `Need`s that are asked for."""

Columns = dict[str, "torch.Tensor"]
"""`[rows, ...]` by field of `VisualTokens`; a score has no further axis."""


Pad = Callable[["torch.Tensor", "torch.Tensor"], None]
"""`pad(buffer, values)`: writes a batch's values into the larger buffer of a CUDA graph."""


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


class CapturedTower(Tower, Protocol):
    """A tower whose run can be captured in CUDA graphs: what it takes is made first, on the host
    where needed, then it runs without asking the host."""

    padding: Mapping[str, Pad | None]
    """How each input is written into the buffer of a graph: None is zeros behind the values."""

    def captures(self, image: EncoderImage) -> bool:
        """Return whether graphs are made for such an image, if it is not too large."""
        ...

    def graph_rows(self, at_most: int) -> list[int]:
        """Return the numbers of rows that are worth a graph, ascending: at least one, and none but
        the first above `at_most`."""
        ...

    def inputs(self, images: Sequence[EncoderImage]) -> dict[str, torch.Tensor]:
        """Return what `run` takes for a batch."""
        ...

    def blank(
        self, rows: int, images: int, device: torch.device, dtype: torch.dtype
    ) -> dict[str, torch.Tensor]:
        """Return the same for any batch of at most so many rows and images."""
        ...

    def run(self, inputs: dict[str, torch.Tensor], needs: frozenset[Need]) -> Columns:
        """Return the columns of a batch, and behind them those of its padding."""
        ...
