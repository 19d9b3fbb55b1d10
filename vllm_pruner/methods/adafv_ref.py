"""AdaFV as published, its defects included: for reproducing published numbers, for nothing else.

Han et al., https://arxiv.org/abs/2501.09532; see `adafv` for the formula. What this one has that
`adafv` repairs, for one crop an image:

- **A token that both lists choose is kept twice**: the decoder reads it twice, side by side, and
  fewer than K different tokens are kept. The indices ascend, but are not unique.
- The budget is rounded down to an even number; a budget of 1 stays 1.
- Each of the free places goes to the list's next value, whether the other list has it or not.

The published code's error in the index of a crop has no counterpart here: there is one crop.

Deviations from the published code: ties go to the lower index, and without text saliency alone
decides (each of its tokens twice). Nothing is asked of the host.
"""

from __future__ import annotations

import torch
from vtprune_kernels import top_k_sorted

from vllm_pruner.methods.adafv import AdaFVOptions, lists
from vllm_pruner.methods.base import Method, Need, VisualTokens
from vllm_pruner.methods.budget import Budget, keep_count

__all__ = ["ADAFV_REF"]


def count(tokens: int, budget: Budget) -> int:
    """Return the budget as the published code rounds it."""
    return max(1, keep_count(tokens, budget) // 2 * 2)


def select(tokens: VisualTokens, keep: int, options: AdaFVOptions) -> torch.Tensor:
    """Return `[images, keep]` indices, ascending, a token up to twice; see `Method.select`."""
    relevant, salient = lists(tokens, keep, options)
    # Place 2 j stands for token j from the one list, 2 j + 1 from the other.
    both = torch.stack([relevant.chosen, salient.chosen], dim=2).flatten(1)
    return top_k_sorted(both.float(), keep) // 2


ADAFV_REF = Method(
    "adafv-ref",
    select,
    AdaFVOptions,
    frozenset({Need.IMPORTANCE, Need.PROJECTED, Need.TEXT}),
    count,
    repeats=True,
)
