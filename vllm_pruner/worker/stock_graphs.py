"""vLLM's own CUDA graphs of a vision tower, which it replays where nobody prunes.

Where the operator asks for them (`cudagraph_mm_encoder`), stock vLLM packs a batch into graphs of
its own sizes, projector included. An image that is not pruned gets what these graphs give, not what
ours give: a GPU sums in another order in a graph of another size.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from vllm_pruner import compat
from vllm_pruner.worker.model import PrunedModel

__all__ = ["StockGraphs"]

logger = logging.getLogger("vllm.vtprune")

_PIXELS = "pixel_values"
"""Part of the name of the field with the pixels, in every model. Embeddings have none."""


class StockGraphs:
    """Replays the graphs of vLLM's own class.

    To a manager it is that class's `SupportsEncoderCudaGraph`, without what ours make of it.
    """

    graphs_for = "unpruned images"
    """Said if they cannot be captured."""

    def __init__(self, model: Any) -> None:
        """Store the model.

        Args:
            model: a `PrunedModel` whose vLLM class implements `SupportsEncoderCudaGraph`.
        """
        self._stock: Any = super(PrunedModel, model)
        self._manager: Any = None
        self._owner: Any = None
        self._modalities: frozenset[str] = frozenset()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stock, name)

    def beside(self, owner: Any, budgets: Sequence[int], device: torch.device) -> Any:
        """Return a manager of these graphs alone, to be captured beside another's and cleared with
        it.

        Args:
            owner: vLLM's manager of our graphs.
            budgets: the sizes that the operator names; empty for vLLM's.
            device: where the graphs run.
        """
        manager = compat.manager_of(self, owner.vllm_config, budgets, device)
        self._owner, self._manager = owner, None
        return manager

    def graphs_captured(self, manager: Any, seconds: float, size: int) -> None:
        """Replay a manager's graphs from now on; called by `compat.encoder_graphs`."""
        # The runner's own manager has been told none, so that it calls `embed_multimodal`.
        self._modalities = frozenset(self._stock.get_encoder_cudagraph_config().modalities)
        self._manager = manager
        logger.info(
            "vtprune: images that are not pruned replay vLLM's own %d CUDA graphs of the vision "
            "tower: captured in %.1f s, %d MiB",
            manager.get_num_graphs_to_capture(),
            seconds,
            size >> 20,
        )

    def graphs_cleared(self, manager: Any) -> None:
        """Stop using a manager, or the one beside it, whose graphs are about to be released."""
        if manager is self._manager:
            self._manager = None
        elif manager is self._owner:
            beside, self._owner = self._manager, None
            if beside is not None:
                beside.clear()

    def hold(self, fields: Mapping[str, Any]) -> bool:
        """Return whether stock vLLM would give this batch, as `embed_multimodal` takes it, to its
        graphs."""
        if self._manager is None or not any(_PIXELS in name for name in fields):
            return False
        return self._stock.get_input_modality(fields) in self._modalities

    def some(self, fields: Mapping[str, Any], places: Sequence[int]) -> dict[str, Any]:
        """Return the part of a batch with the items at `places`, for `embed`."""
        selected: dict[str, Any] = self._stock.select_encoder_cudagraph_items(fields, [*places])
        return selected

    def embed(self, fields: Mapping[str, Any]) -> list[torch.Tensor]:
        """Return what stock vLLM makes of a batch that is held: the decoder's rows of each item."""
        rows: list[torch.Tensor] = self._manager.execute(fields)
        return rows
