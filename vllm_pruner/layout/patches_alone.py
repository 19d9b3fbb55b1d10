"""What layouts have in common in which every token is a patch: no newlines, no padding."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

__all__ = ["PatchesAlone"]


class PatchesAlone(ABC):
    """Base of a `Layout` whose positions, patches and rows of the tower are one and the same."""

    __slots__ = ()

    @property
    @abstractmethod
    def tokens(self) -> int: ...

    @property
    def patches(self) -> int:
        return self.tokens

    @property
    def encoded(self) -> int:
        return self.tokens

    @property
    def height(self) -> int:
        return 0

    def patches_at(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return positions, torch.zeros_like(positions, dtype=torch.bool)
