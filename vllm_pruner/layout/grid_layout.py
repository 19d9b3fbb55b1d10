"""An image of any resolution as one grid of tokens, or a video as a sequence of such grids: Qwen-VL
and its kin.

The tower's patches are merged two by two before the decoder sees them; rows and columns here count
merged tokens, in raster order. A frame here is one temporal patch of the tower: two frames of the
clip.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from vllm_pruner.layout.layout import View
from vllm_pruner.layout.patches_alone import PatchesAlone

__all__ = ["GridLayout"]


@dataclass(frozen=True, slots=True)
class GridLayout(PatchesAlone):
    """The layout of one image or video; see `Layout`."""

    rows: int
    columns: int

    frames: int = 0
    """Number of frames of a video; 0 for an image."""

    pace: float = 1.0
    """Temporal positions per frame."""

    joined: int = 1
    """Frames of the tower that become one of these behind it."""

    apart: bool = False
    """Whether other tokens separate the frames in the prompt. A frame then has no temporal position
    of its own: those tokens tell the time."""

    @property
    def frame_tokens(self) -> int:
        """Tokens of an image, or of each frame."""
        return self.rows * self.columns

    @property
    def tokens(self) -> int:
        return max(1, self.frames) * self.frame_tokens

    @property
    def encoded(self) -> int:
        return self.joined * self.tokens

    @property
    def crops(self) -> int:
        return 1

    @property
    def whole_grid(self) -> tuple[int, int]:
        return self.rows, self.columns

    @property
    def breaks(self) -> int:
        """Breaks between the rows of an image, in a prompt that has such."""
        return self.rows - 1

    def places_at(self, positions: torch.Tensor, within: GridLayout) -> torch.Tensor:
        """Return `[..., 3]` int64, time, row and column of the tokens at positions, as M-RoPE
        counts them: from 0 for each image.

        Args:
            positions: `[...]` int64, in raster order, frame by frame.
            within: the grid in which positions are counted: this one, or a smaller one, to which
                rows and columns are scaled down, so that several tokens may share a place.
        """
        frame, place = positions // self.frame_tokens, positions % self.frame_tokens
        row = place // self.columns * within.rows // self.rows
        column = place % self.columns * within.columns // self.columns
        # vLLM and transformers round down, too.
        pace = 0.0 if self.apart else self.pace
        time = frame if pace == 1.0 else (frame.double() * pace).long()
        return torch.stack([time, row, column], dim=-1)

    def reach(self, others: int) -> float:
        """Return how many positions of M-RoPE a run of a video takes.

        Args:
            others: tokens between joined frames, which are one run; 0 if frames are not joined.
        """
        if not self.apart:
            return self.frames * self.pace
        extent = max(self.rows, self.columns)
        return self.frames * extent + others if others else extent

    def order_with_breaks(self, index: torch.Tensor) -> torch.Tensor:
        """Return `[images, keep + rows - 1]` int64, the order of the kept tokens and the breaks
        between rows: a token is its column in `index`, breaks are numbered from `keep` on.

        Args:
            index: `[images, keep]` int64, ascending. Rows that keep nothing have a break too.
        """
        ends = torch.arange(1, self.rows, device=index.device) * (self.columns + 1) - 1
        places = torch.cat([index + index // self.columns, ends.expand(len(index), -1)], dim=1)
        return places.argsort(dim=1, stable=True)

    def compact(self, keep: int) -> GridLayout:
        """Return a grid of about the same aspect ratio with room for `keep` of its tokens, 1 to
        all; for a video with as many frames, at the same pace."""
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
