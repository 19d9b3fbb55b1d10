"""The texts of a batch of images, one after the other in one tensor.

Methods of other packages see a sequence with a tensor for each image. What reads `rows` and `ends`
in place of that needs no number of the host, so a CUDA graph can hold it: the rows behind the last
text, of a buffer that is larger than the texts in it, are no image's and may contain anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import overload

import torch

from vllm_pruner.methods.on_device import on_device
from vllm_pruner.methods.ragged import first_of_each

__all__ = ["Texts"]


@dataclass(frozen=True, slots=True, eq=False)
class Texts(Sequence[torch.Tensor]):
    """Embedded texts, one for each image; some may be empty."""

    rows: torch.Tensor
    """`[T, width]`: the tokens of the first image's text, then those of the second, and so on."""

    ends: torch.Tensor
    """`[images + 1]` int64: 0, then the place in `rows` at which each text ends; T at most."""

    longest: int
    """No text has more tokens."""

    lengths: tuple[int, ...] | None = None
    """The tokens of each text, where the host knows them. Without, a text as a tensor of its own
    makes the host wait for the device."""

    @classmethod
    def cut(cls, rows: torch.Tensor, lengths: Sequence[int]) -> Texts:
        """Cut `rows`, `[tokens of all texts, width]`, into texts; no device sync."""
        ends = on_device([0, *accumulate(lengths)], rows.device)
        return cls(rows, ends, max(lengths, default=0), tuple(lengths))

    @classmethod
    def of(cls, texts: Sequence[torch.Tensor], like: torch.Tensor) -> Texts:
        """Pack a tensor `[tokens, width]` for each image, unless they are packed.

        Args:
            texts: the texts.
            like: `[..., width]`, on the same device; its dtype is that of no texts at all.
        """
        if isinstance(texts, cls):
            return texts
        rows = torch.cat([like.new_zeros(0, like.shape[-1]), *texts])
        return cls.cut(rows, [len(text) for text in texts])

    def __len__(self) -> int:
        return len(self.ends) - 1

    @overload
    def __getitem__(self, place: int) -> torch.Tensor: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[torch.Tensor]: ...
    def __getitem__(self, place: int | slice) -> torch.Tensor | Sequence[torch.Tensor]:
        return self._apart()[place]

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(self._apart())

    def _apart(self) -> list[torch.Tensor]:
        """Return a view `[tokens, width]` for each text."""
        lengths = self.ends.diff().tolist() if self.lengths is None else list(self.lengths)
        return list(self.rows[: sum(lengths)].split(lengths)) if lengths else []

    def exist(self) -> torch.Tensor:
        """Return `[images]` bool, whether an image has a text."""
        return self.ends.diff() > 0

    def owners(self) -> torch.Tensor:
        """Return `[T]` int64, the image of each row; the number of images for a row of none."""
        places = torch.arange(len(self.rows), device=self.rows.device)
        return torch.bucketize(places, self.ends[1:], right=True)

    def padded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the texts as `[images, longest, width]`, with zeros at the end, and which of these
        rows exist, `[images, longest]` bool."""
        exists = first_of_each(self.ends.diff(), self.longest)
        places = torch.arange(self.longest, device=self.rows.device) + self.ends[:-1].unsqueeze(1)
        rows = self.rows[places.clamp_max(max(0, len(self.rows) - 1))]
        return rows.masked_fill(~exists.unsqueeze(2), 0.0), exists
