"""The device time that dropped tokens would have taken in the decoder: an estimate.

Nothing measures what is not done, and timing the decoder would need a hook inside CUDA graphs. But
the tower is a transformer on the same device whose time is measured, so a dropped token is taken to
cost in the decoder, per parameter that a token meets, what a patch costs in the tower:

    seconds saved = dropped * P_decoder * tower seconds / (patches encoded * P_tower)

P counts the parameters of weight matrices on this rank; embeddings are looked up, and the decoder's
head sees the last token only, so both are left out. Attention over the context, decoding over a
shorter one and the projection are left out too, so the estimate is low for long prompts. It is
high for a mixture of experts, whose tokens meet few of the parameters, and where a small tower
leaves the device idle. For `resize`, the time that the tower saves is not in it.
"""

from __future__ import annotations

from collections import Counter

from torch import nn
from vllm.distributed import get_pp_group
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

from vllm_pruner.telemetry import metrics

__all__ = ["Savings", "matrix_parameters"]


def matrix_parameters(module: nn.Module) -> int:
    """Return how many parameters of matrices a token meets: no embeddings, no heads."""
    skipped = (nn.Embedding, VocabParallelEmbedding)
    return sum(
        parameter.numel()
        for part in module.modules()
        if not isinstance(part, skipped)
        for parameter in part.parameters(recurse=False)
        if parameter.dim() > 1
    )


class Savings:
    """Counts `vtprune_prefill_seconds_saved`."""

    def __init__(self, tower: nn.Module, decoder: nn.Module) -> None:
        """Measure both; with pipeline parallelism, each rank has a share of the decoder."""
        in_decoder = matrix_parameters(decoder) * get_pp_group().world_size
        self._ratio = in_decoder / max(1, matrix_parameters(tower))
        self._waiting: Counter[str] = Counter()

    def add(self, method: str, dropped: int, seconds_per_patch: float | None) -> None:
        """Count dropped tokens.

        Args:
            method: that dropped them.
            dropped: how many.
            seconds_per_patch: of the tower, by all that was measured so far; None while nothing
                was, when the tokens wait.
        """
        self._waiting[method] += dropped
        if seconds_per_patch is None:
            return
        for name, tokens in self._waiting.items():
            metrics.PREFILL_SECONDS_SAVED.add(tokens * self._ratio * seconds_per_patch, method=name)
        self._waiting.clear()
