"""Select tokens for groups of images; time and count it, and keep all ranks identical."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from vllm.distributed import get_tp_group

from vllm_pruner.layout.crop_budget import choose
from vllm_pruner.methods.base import Kept, Method, VisualTokens
from vllm_pruner.methods.faults import MethodFault
from vllm_pruner.telemetry import metrics
from vllm_pruner.telemetry.stopwatch import Stopwatch
from vllm_pruner.worker.together import apart, padded, share_of, together

if TYPE_CHECKING:
    from vllm_pruner.worker.batches import Group
    from vllm_pruner.worker.encoder import Encoder
    from vllm_pruner.worker.guard import Guard
    from vllm_pruner.worker.savings import Savings
    from vllm_pruner.worker.selection_graphs import SelectionGraphs

__all__ = ["Selector"]


class Selector:
    """Runs methods, and counts their cost and savings."""

    def __init__(self, encoder: Encoder, savings: Savings, guard: Guard) -> None:
        """Start the counters.

        Args:
            encoder: makes the features; its time per patch is the unit for dropped tokens.
            savings: counts the dropped tokens.
            guard: calls the methods of other packages.
        """
        self._encoder, self._savings, self._guard = encoder, savings, guard
        self.graphs: SelectionGraphs | None = None
        """The CUDA graphs of the server's own selection; None if there are none."""
        self._watch = Stopwatch(metrics.SELECTION_SECONDS, encoder.device)

    def count(self, enabled: bool) -> None:
        """Count the selections that follow, or do not (vLLM's dummy images)."""
        self._watch.enabled = enabled and self._encoder.counts

    @torch.no_grad()
    def select(self, tokens: Sequence[VisualTokens], groups: Sequence[Group]) -> list[Kept]:
        """Return the kept positions of the decoder's sequence, or merged rows, of each group.

        Without pruning, all positions are kept.

        Args:
            tokens: the tokens of each group's images.
            groups: the groups of one batch.

        Raises:
            MethodFault: see `Guard.choose`.
        """
        kept: dict[int, Kept] = {}
        for places in together(groups):
            some = [tokens[place] for place in places], [groups[place] for place in places]
            kept |= zip(places, self._select_in_one_call(*some), strict=True)
        return [kept[place] for place in range(len(groups))]

    def _select_in_one_call(
        self, tokens: Sequence[VisualTokens], groups: Sequence[Group]
    ) -> list[Kept]:
        first, config = groups[0], groups[0].config
        if config.off:
            positions = torch.arange(first.layout.tokens, device=tokens[0].features.device)
            return [Kept(positions.expand(len(tokens[0].features), -1))]
        with self._watch.measure(method=config.method):
            kept = self._chosen(tokens, groups)
        if self._watch.enabled:
            dropped = sum(len(group.plans) * (group.layout.tokens - group.keep) for group in groups)
            self._savings.add(config.method, dropped, self._encoder.seconds_per_patch)
        return _from_first_rank(kept)

    def _chosen(self, tokens: Sequence[VisualTokens], groups: Sequence[Group]) -> list[Kept]:
        """Return what each group keeps."""
        first = groups[0]
        run = Method.choose if self.graphs is None else self.graphs.choose
        if len(groups) > 1:
            method, options = first.config.resolved
            most = max(map(share_of, groups))
            joined = padded(tokens, groups)
            chosen = run(method, joined, most, options)
            return apart(chosen.index, joined, tokens, groups)
        if first.foreign:
            return [self._guarded(tokens[0], first)]
        return [choose(tokens[0], first.config, first.layout, run=run)]

    def _guarded(self, tokens: VisualTokens, group: Group) -> Kept:
        """Call a method of another package, on the first rank only.

        Other ranks return a selection of the same shape, to be overwritten.

        Raises:
            MethodFault: on the first rank, see `Guard.choose`; other ranks raise `RuntimeError`.
        """
        ranks, kept, fault, has_rows = get_tp_group(), None, None, False
        if ranks.rank_in_group == 0:
            try:
                kept = self._guard.choose(
                    tokens, group.config, group.layout, group.keep, group.plans
                )
            except MethodFault as error:
                fault = error
        if ranks.world_size > 1:
            has_rows, said = ranks.broadcast_object(
                (kept is not None and kept.rows is not None, fault and str(fault)), src=0
            )
            if said is not None and fault is None:
                raise RuntimeError(said)
        if fault is not None:
            raise fault
        return _place_for(tokens, group, has_rows) if kept is None else kept


def _place_for(tokens: VisualTokens, group: Group, has_rows: bool) -> Kept:
    """Return an empty selection to receive the first rank's."""
    features = tokens.features
    index = torch.empty(len(features), group.keep, dtype=torch.int64, device=features.device)
    return Kept(index, features.new_empty(*index.shape, features.shape[2]) if has_rows else None)


def _from_first_rank(selections: list[Kept]) -> list[Kept]:
    """Return the selections of the first rank in the tensor-parallel group, with one broadcast.

    Equal features give equal indices, and ranks have equal features because an all-reduce gives the
    same bits on all of them. If a backend broke this, ranks would mix tokens of different
    selections; so the first rank's choice is broadcast, a few hundred bytes.
    """
    ranks = get_tp_group()
    if ranks.world_size == 1:
        return selections
    flat = ranks.broadcast(torch.cat([kept.index.flatten() for kept in selections]), src=0)
    sizes = [kept.index.numel() for kept in selections]
    return [
        Kept(
            index.view_as(kept.index),
            None if kept.rows is None else ranks.broadcast(kept.rows.contiguous(), src=0),
        )
        for index, kept in zip(flat.split(sizes), selections, strict=True)
    ]
