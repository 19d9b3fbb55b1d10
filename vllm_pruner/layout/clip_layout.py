"""A video as frames of one size, one after the other, and one newline at its end: LLaVA-OneVision.

The tower's patches of a frame are interpolated to a smaller square, so a token is a mixture of
patches. The newline counts as one token of the budget, but is dropped if the budget is one token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vllm_pruner.layout.layout import View

__all__ = ["ClipLayout"]


@dataclass(frozen=True, slots=True)
class ClipLayout:
    """The layout of one video; see `Layout`."""

    frames: int

    side: int
    """Rows, and columns, of patches in a frame."""

    stride: int = 2
    """Patches per token in each direction; the last token of a row or column may have fewer."""

    @property
    def apart(self) -> bool:
        """False: all tokens of a video are one run."""
        return False

    @property
    def pooled(self) -> int:
        """Rows, and columns, of tokens in a frame."""
        return -(-self.side // self.stride)

    @property
    def patches(self) -> int:
        """Tokens of all frames, without the newline. After interpolation these are the patches."""
        return self.frames * self.pooled**2

    @property
    def tokens(self) -> int:
        return self.patches + 1

    @property
    def encoded(self) -> int:
        return self.frames * self.side**2

    @property
    def crops(self) -> int:
        return self.frames

    @property
    def height(self) -> int:
        return 1

    @property
    def whole_grid(self) -> tuple[int, int] | None:
        return None

    def budget(self, keep: int) -> int:
        """Return the number of patches to keep, for a budget of `keep` tokens."""
        return max(1, keep - 1)

    def with_newline(self, patches: torch.Tensor, keep: int) -> torch.Tensor:
        """Return the positions `[videos, keep]` of kept tokens, given those of patches."""
        end = patches.new_full((len(patches), keep - patches.shape[1]), self.patches)
        return torch.cat([patches, end], dim=1)

    def patches_at(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        newline = positions == self.patches
        return positions.masked_fill(newline, 0), newline

    def views(self) -> list[View]:
        """Return every frame by itself."""
        area, size = ((0, self.side), (0, self.side)), self.pooled**2
        tokens = (self.pooled, self.pooled)
        return [
            View((0, 0), *area, frame * size, (frame + 1) * size, crop=frame, tokens=tokens)
            for frame in range(self.frames)
        ]
