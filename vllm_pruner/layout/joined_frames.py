"""The frames of a video as one run of rows, with the tokens that stand between them in the prompt.

Where other tokens, such as its time, tell one frame from the next, how many tokens a frame keeps
has to be known before the tower has run if these are text: the prompt is written by then. A method
that compares frames gives each as many as it is worth. So the prompt has one run of placeholders
for what is kept of all frames and for what is between them, and the model puts both in order. A
frame of which nothing is kept still has its text.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.methods.on_device import on_device

__all__ = ["Between", "JoinedFrames"]

Between = tuple[tuple[int, ...], ...]
"""The token ids between each frame of a video and the next one."""


@dataclass(frozen=True, slots=True)
class JoinedFrames:
    """The run of each of several videos with the same layout and the same tokens between frames.

    Its rows are numbered: a kept token is its column in `index`, the tokens between frames are
    numbered from `keep` on.
    """

    layout: GridLayout

    index: torch.Tensor
    """`[videos, keep]` int64, ascending: the kept tokens."""

    tokens: torch.Tensor
    """`[others]` int64: the ids of the tokens between frames."""

    after: torch.Tensor
    """`[others]` int64, ascending: the frame that each of them follows."""

    @classmethod
    def of(cls, layout: GridLayout, index: torch.Tensor, between: Between) -> JoinedFrames:
        """Return the runs of videos; see the fields."""
        ids = [token for text in between for token in text]
        after = [frame for frame, text in enumerate(between) for _ in text]
        return cls(layout, index, on_device(ids, index.device), on_device(after, index.device))

    def order(self) -> torch.Tensor:
        """Return `[videos, keep + others]` int64, the order of the rows."""
        begins, others = self._starts(self.layout.frame_tokens)
        kept = begins + self.index % self.layout.frame_tokens
        return torch.cat([kept, others.expand(len(kept), -1)], dim=1).argsort(dim=1)

    def places(self, within: GridLayout) -> torch.Tensor:
        """Return `[videos, keep + others, 3]` int64, time, row and column of the rows in order, as
        M-RoPE counts them: from 0 at the first frame. A frame takes as many positions as its longer
        side, the tokens behind it count on from there.

        Args:
            within: the grid in which positions are counted; see `GridLayout.places_at`.
        """
        begins, others = self._starts(max(within.rows, within.columns))
        kept = begins.unsqueeze(2) + self.layout.places_at(self.index, within)
        rows = torch.cat([kept, others[:, None].expand(len(kept), -1, 3)], dim=1)
        return rows.gather(1, self.order().unsqueeze(2).expand(-1, -1, 3))

    def _starts(self, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return where the frame of each kept token begins, `[videos, keep]`, and where each other
        token stands, `[others]`, if a frame takes `length`."""
        frame = self.index // self.layout.frame_tokens
        before = torch.searchsorted(self.after, frame)
        number = torch.arange(len(self.after), device=self.after.device)
        return frame * length + before, (self.after + 1) * length + number
