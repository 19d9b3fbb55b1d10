"""An image as one grid of tokens, of any resolution, or a video as a row of such grids: Qwen-VL
and its kin.

The tower's patches are merged two by two before the decoder sees them; rows and columns here are
those of merged tokens, in raster order. A frame of a video here is what the tower takes for
one: two frames of the clip.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from vllm_pruner.layout.layout import View

__all__ = ["GridLayout"]


@dataclass(frozen=True, slots=True)
class GridLayout:
    """The layout of one image or video; see `Layout`."""

    rows: int
    columns: int

    frames: int = 0
    """Of a video; 0 is an image."""

    pace: float = 1.0
    """How many positions of time a frame lasts."""

    apart: bool = False
    """Whether other tokens of the prompt stand between frames, which count as pictures then: each
    keeps its share of any budget, and time is in these tokens."""

    @property
    def frame_tokens(self) -> int:
        """Tokens of an image, or of each frame."""
        return self.rows * self.columns

    @property
    def tokens(self) -> int:
        return max(1, self.frames) * self.frame_tokens

    @property
    def patches(self) -> int:
        return self.tokens

    @property
    def encoded(self) -> int:
        return self.tokens

    @property
    def crops(self) -> int:
        return 1

    @property
    def height(self) -> int:
        return 0

    @property
    def whole_grid(self) -> tuple[int, int]:
        return self.rows, self.columns

    def patches_at(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return positions, torch.zeros_like(positions, dtype=torch.bool)

    def places_at(self, positions: torch.Tensor, within: GridLayout | None = None) -> torch.Tensor:
        """Return `[..., 3]` int64, time, row and column of the tokens at positions, as multi-
        dimensional rotary positions count them: from 0 for each image.

        Args:
            positions: int64, in raster order, frame by frame.
            within: a grid that this one is drawn together to, so that several tokens may stand at
                one place; by default it stays as it is.
        """
        frame, place = positions // self.frame_tokens, positions % self.frame_tokens
        row, column = place // self.columns, place % self.columns
        if within is not None:
            row, column = row * within.rows // self.rows, column * within.columns // self.columns
        # As vLLM and transformers round: to the whole position before.
        pace = 0.0 if self.apart else self.pace
        time = frame if pace == 1.0 else (frame.double() * pace).long()
        return torch.stack([time, row, column], dim=-1)

    def order_with_breaks(self, index: torch.Tensor) -> torch.Tensor:
        """Return `[images, keep + rows - 1]` int64, in which order the kept tokens and the breaks
        between rows stand: tokens by their place in `index`, breaks numbered from `keep` on.

        Args:
            index: `[images, keep]` int64, ascending. Rows that keep nothing have their breaks too.
        """
        ends = torch.arange(1, self.rows, device=index.device) * (self.columns + 1) - 1
        places = torch.cat([index + index // self.columns, ends.expand(len(index), -1)], dim=1)
        return places.argsort(dim=1, stable=True)

    def compact(self, keep: int) -> GridLayout:
        """Return a grid of about this shape that has room for `keep` of its tokens, 1 to all; of a
        video as many frames, at the same pace."""
        each = math.ceil(keep / max(1, self.frames))
        rows = min(self.rows, math.ceil(self.rows * math.sqrt(each / self.frame_tokens)))
        return replace(self, rows=rows, columns=math.ceil(each / rows))

    def views(self) -> list[View]:
        """Return the image, or every frame."""
        whole, size = ((0, self.rows), (0, self.columns)), self.frame_tokens
        return [
            View((0, 0), *whole, frame * size, (frame + 1) * size, crop=frame)
            for frame in range(max(1, self.frames))
        ]
