"""What pruning asks of an image's geometry, whatever the model.

There are two ways to count. A *patch* is a token that comes from the encoder and is not padding,
numbered in the decoder's order. A *position* counts tokens of the model's own too (newlines), as
placeholders do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import torch

__all__ = ["Crops", "Layout", "View"]


class View(NamedTuple):
    """A rectangle of patches as a person sees it: an image, or part of its layout."""

    crops: tuple[int, int]
    """Rows and columns of crops that it is put together from; (0, 0) is one crop, `crop`."""

    rows: tuple[int, int]
    """Which rows of patches of these crops it shows, as a half-open range; others are padding."""

    columns: tuple[int, int]
    start: int
    """Its first patch."""

    end: int
    """Where its patches end."""

    missing: int = 0
    """Places before its first patch that have none (SigLIP's dropped patch)."""

    crop: int = 0
    """The one crop that it shows, counting the base crop as 0."""

    tokens: tuple[int, int] | None = None
    """Rows and columns of tokens in it, if they are other than those of patches."""


class Layout(Protocol):
    """The geometry of one image; hashable, so that images with equal layouts are selected in one
    call."""

    @property
    def tokens(self) -> int:
        """Number of positions: as many as placeholders without pruning."""
        ...

    @property
    def patches(self) -> int:
        """Number of patches."""
        ...

    @property
    def encoded(self) -> int:
        """Rows that the encoder makes of the image, padding included."""
        ...

    @property
    def crops(self) -> int:
        """Pieces that are encoded, and may be budgeted, one by one."""
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
        """Return the patches at positions, and a mask of those that are newlines (whose patch is
        given as 0)."""
        ...

    def views(self) -> list[View]:
        """Return what a person would look at; together they have every patch once."""
        ...


class Crops(Layout, Protocol):
    """The layout of an image that may be several crops; the encoder attends within a crop."""

    @property
    def base(self) -> int:
        """Rows that the encoder makes of each crop."""
        ...

    @property
    def fixed_shares(self) -> bool:
        """Whether each crop keeps its share of any budget: in the prompt its tokens stand apart
        from the next one's, and how many do is settled before the encoder has seen the image."""
        ...

    def sources(self, device: torch.device) -> torch.Tensor:
        """Return `[patches]`, the index of each patch among the encoder's rows."""
        ...

    def patches_of_crops(self, device: torch.device) -> list[torch.Tensor]:
        """Return the patches of each crop, ascending; empty for a crop that is all padding."""
        ...
