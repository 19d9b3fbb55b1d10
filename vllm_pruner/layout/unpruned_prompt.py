"""A prompt as it would be without pruning, for which a stock model can compute positions.

All that it takes is the pruned prompt and where its runs of placeholders are; which tokens an image
keeps does not matter, so it is known before any image has been encoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

__all__ = ["Run", "Unpruned", "unpruned"]


class Run(NamedTuple):
    """A run of placeholders in a pruned prompt."""

    offset: int
    length: int
    whole: Sequence[int]
    """The tokens that would be there without pruning."""


@dataclass(frozen=True, slots=True)
class Unpruned:
    """A prompt as it would be without pruning."""

    tokens: list[int]
    index: torch.Tensor
    """`[pruned prompt]` int64: the index in `tokens` of each token of the pruned prompt. Rows of a
    pruned image get the image's first places; `positions.fill` moves them."""


def unpruned(tokens: Sequence[int], runs: Sequence[Run]) -> Unpruned:
    """Return the prompt as it would be without pruning.

    Args:
        tokens: the pruned prompt.
        runs: the runs of its images and videos, ascending.
    """
    whole: list[int] = []
    index: list[int] = []
    end = 0
    for offset, length, tokens_of_run in runs:
        index += range(len(whole), len(whole) + offset - end)
        whole += tokens[end:offset]
        index += range(len(whole), len(whole) + length)
        whole += tokens_of_run
        end = offset + length
    index += range(len(whole), len(whole) + len(tokens) - end)
    whole += tokens[end:]
    return Unpruned(whole, torch.tensor(index))
