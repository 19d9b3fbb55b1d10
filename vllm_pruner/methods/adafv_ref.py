"""AdaFV as published, defects included: only for reproducing published numbers.

Han et al., https://arxiv.org/abs/2501.09532; see `adafv` for the formula. The defects that `adafv`
repairs, for an image of one crop:

- **A token that both lists choose is kept twice**: the decoder reads it twice in a row, and fewer
  than K distinct tokens are kept. The indices ascend, but are not unique.
- The budget is rounded down to an even number; a budget of 1 stays 1.
- Each free place goes to the list's next value, even if the other list has chosen that token.

The published code also has an error in the index of a crop; with one crop it does not arise.

Deviations from the published code: ties go to the lower index, and without text saliency alone
decides (each of its tokens is kept twice). There is no host sync.
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
    """Return `[images, keep]` indices, ascending, each at most twice; see `Method.select`."""
    chosen = lists(tokens, keep, options).chosen
    # Column 2 j is token j of the first list, column 2 j + 1 of the second.
    return top_k_sorted(chosen.permute(1, 2, 0).flatten(1).float(), keep) // 2


ADAFV_REF = Method(
    "adafv-ref",
    select,
    AdaFVOptions,
    frozenset({Need.IMPORTANCE, Need.PROJECTED, Need.TEXT}),
    count,
    repeats=True,
)
