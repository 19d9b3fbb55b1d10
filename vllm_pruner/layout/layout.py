"""The geometry of an image's tokens, as pruning needs it, for any model.

A *patch* is a token that comes from the encoder and is not padding; patches are numbered in the
decoder's order. A *position* also counts the model's own tokens (newlines), as placeholders do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import torch

__all__ = ["TABLES", "Crops", "Layout", "View"]

TABLES = 128
"""Layouts of which the device remembers what follows from them alone. All tables of a LLaVA-NeXT
layout are some 200 kB, those of a Qwen-VL picture of 16,384 tokens 300 kB: 40 MB if all are so
large, which vLLM's memory profile does not see. Not to be read in a CUDA graph: the table of a
layout that has not been seen for long goes."""


class View(NamedTuple):
    """A rectangle of patches as a person sees it: an image, or part of its layout."""

    crops: tuple[int, int]
    """Rows and columns of the crops that form it; (0, 0) if it is the single crop `crop`."""

    rows: tuple[int, int]
    """The rows of patches of these crops that are not padding, as a half-open range."""

    columns: tuple[int, int]
    """The same for columns."""

    start: int
    """Index of its first patch."""

    end: int
    """Index after its last patch."""

    missing: int = 0
    """Number of places before the first patch that have no patch (SigLIP's dropped one)."""

    crop: int = 0
    """The single crop that it shows; the base crop is 0."""

    tokens: tuple[int, int] | None = None
    """Rows and columns of tokens in it, if they differ from those of patches."""

    is_drawn: bool = True
    """Whether these rows and columns lie on the picture; if not, nothing can be drawn on it."""


class Layout(Protocol):
    """The geometry of one image; hashable, so that images with equal layouts are selected in one
    call."""

    def __hash__(self) -> int: ...

    @property
    def tokens(self) -> int:
        """Number of positions, which is the number of placeholders without pruning."""
        ...

    @property
    def patches(self) -> int:
        """Number of patches."""
        ...

    @property
    def encoded(self) -> int:
        """Number of rows in the encoder's output for the image, padding included."""
        ...

    @property
    def crops(self) -> int:
        """Number of pieces that are encoded, and may be budgeted, separately."""
        ...

    @property
    def height(self) -> int:
        """Number of newlines."""
        ...

    @property
    def whole_grid(self) -> tuple[int, int] | None:
        """Rows and columns of tokens if the image is one complete grid of them, else None."""
        ...

    def patches_at(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the patch at each position, and a mask of the newlines (whose patch is 0).

        Args:
            positions: int64, of any shape; both results have it too.
        """
        ...

    def views(self) -> list[View]:
        """Return the pictures to show to a person; together they contain every patch once."""
        ...


class Crops(Layout, Protocol):
    """The layout of an image that may be several crops; the encoder attends within a crop."""

    @property
    def base(self) -> int:
        """Number of rows in the encoder's output for each crop."""
        ...

    @property
    def fixed_shares(self) -> bool:
        """Whether each crop gets a fixed share of any budget: other tokens separate the crops in
        the prompt, so each crop's count must be known before the image is encoded."""
        ...

    def sources(self, device: torch.device) -> torch.Tensor:
        """Return `[patches]` int64, the index of each patch among the encoder's rows."""
        ...

    def patches_of_crops(self, device: torch.device) -> list[torch.Tensor]:
        """Return the patches of each crop, ascending; empty for a crop that is all padding."""
        ...
