"""An estimate of the device time that dropped tokens would have taken in the decoder.

It cannot be measured, and timing the decoder would need a hook inside CUDA graphs. But the tower is
a transformer on the same device, and its time is measured. So a token is assumed to cost in the
decoder, per parameter applied to it, what a patch costs in the tower:

    seconds saved = dropped * P_decoder * tower seconds / (patches encoded * P_tower)

P counts the parameters of weight matrices on this rank, without embeddings, which are looked up,
and the decoder's head, which sees only the last token. Attention over the context, decoding over a
shorter context and the projection are not counted, so the estimate is low for long prompts. It is
high for a mixture of experts, which applies few of its parameters to a token, and where a small
tower leaves the device idle. For `resize`, the time saved in the tower is not included.
"""

from __future__ import annotations

from collections import Counter

from torch import nn
from vllm.distributed import get_pp_group
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

from vllm_pruner.telemetry import metrics

__all__ = ["Savings", "matrix_parameters"]


def matrix_parameters(module: nn.Module) -> int:
    """Return the number of parameters in weight matrices, without embeddings and output heads."""
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
        """Compute the ratio of sizes. Under pipeline parallelism each rank has a part of the
        decoder."""
        in_decoder = matrix_parameters(decoder) * get_pp_group().world_size
        self._ratio = in_decoder / max(1, matrix_parameters(tower))
        self._waiting: Counter[str] = Counter()

    def add(self, method: str, dropped: int, seconds_per_patch: float | None) -> None:
        """Count dropped tokens.

        Args:
            method: the name of the method that dropped them.
            dropped: their number.
            seconds_per_patch: the tower's measured time per patch; None before the first
                measurement, in which case the tokens are counted later.
        """
        self._waiting[method] += dropped
        if seconds_per_patch is None:
            return
        for name, tokens in self._waiting.items():
            metrics.PREFILL_SECONDS_SAVED.add(tokens * self._ratio * seconds_per_patch, method=name)
        self._waiting.clear()
