"""The selection of one group of images, timed, counted and the same on every rank."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from vllm.distributed import get_tp_group

from vllm_pruner.layout.crop_budget import choose
from vllm_pruner.methods.base import Kept, VisualTokens
from vllm_pruner.telemetry import metrics
from vllm_pruner.telemetry.stopwatch import Stopwatch

if TYPE_CHECKING:
    from vllm_pruner.layout.layout import Layout
    from vllm_pruner.settings.config import PruneConfig
    from vllm_pruner.worker.encoder import Encoder
    from vllm_pruner.worker.savings import Savings

__all__ = ["Selector"]


class Selector:
    """Runs methods, and counts what they cost and save."""

    def __init__(self, encoder: Encoder, savings: Savings) -> None:
        """Start the counters.

        Args:
            encoder: made the features; its time per patch values the dropped tokens.
            savings: counts them.
        """
        self._encoder, self._savings = encoder, savings
        self._watch = Stopwatch(metrics.SELECTION_SECONDS, encoder.device)

    def count(self, enabled: bool) -> None:
        """Count the following selections, or leave them out (vLLM's dummy images)."""
        self._watch.enabled = enabled and self._encoder.counts

    @torch.no_grad()
    def select(self, tokens: VisualTokens, config: PruneConfig, layout: Layout) -> Kept:
        """Return the kept positions of the decoder's sequence, or merged rows.

        Without pruning, all positions are kept.
        """
        if config.off:
            positions = torch.arange(layout.tokens, device=tokens.features.device)
            return Kept(positions.expand(len(tokens.features), -1))
        with self._watch.measure(method=config.method):
            kept = choose(tokens, config, layout)
        if self._watch.enabled:
            dropped = len(tokens.features) * (layout.tokens - config.keep_count(layout.tokens))
            self._savings.add(config.method, dropped, self._encoder.seconds_per_patch)
        return _from_first_rank(kept)


def _from_first_rank(kept: Kept) -> Kept:
    """Return what the first rank of a tensor-parallel group keeps.

    Equal features give equal indices, and ranks agree on the features because an all-reduce ends in
    the same bits everywhere. A backend that broke this would mix the tokens of two selections, so
    the first rank's choice is sent to the others: a few hundred bytes.
    """
    ranks = get_tp_group()
    if ranks.world_size == 1:
        return kept
    index = ranks.broadcast(kept.index.contiguous(), src=0)
    rows = None if kept.rows is None else ranks.broadcast(kept.rows.contiguous(), src=0)
    return Kept(index, rows)
