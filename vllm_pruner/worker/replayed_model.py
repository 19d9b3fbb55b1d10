"""A model whose vLLM class has its tower in CUDA graphs where the operator asks for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vllm_pruner import compat
from vllm_pruner.worker.model import PrunedModel
from vllm_pruner.worker.stock_graphs import StockGraphs

if TYPE_CHECKING:
    import torch
    from vllm.config import VllmConfig

    from vllm_pruner.plan import ImagePlan
    from vllm_pruner.tower import EncoderImage

__all__ = ["ReplayedModel"]


class ReplayedModel(PrunedModel):
    """A `PrunedModel` whose unpruned images replay vLLM's own graphs.

    Changes besides those of `PrunedModel`:
    - vLLM's manager is told of no modality, so that a runner calls `embed_multimodal`, where what
      is not pruned goes to that manager: the same graphs, budgets and packing as in stock vLLM;
    - so do the unpruned images of a request that prunes others.
    Follows vLLM 0.32's `model_executor/models/interfaces.py` and `v1/worker/encoder_cudagraph.py`.
    """

    graphs_for = StockGraphs.graphs_for

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self._stock_graphs = StockGraphs(self)
        if compat.encoder_graphs_known():
            compat.tell_of_encoder_graphs()

    def get_encoder_cudagraph_config(self) -> Any:
        return replace(self._stock_graphs.get_encoder_cudagraph_config(), modalities=[])

    def graphs_captured(self, manager: Any, seconds: float, size: int) -> None:
        """Replay a manager's graphs from now on; called by `compat.encoder_graphs`."""
        self._stock_graphs.graphs_captured(manager, seconds, size)

    def graphs_cleared(self, manager: Any) -> None:
        """Run without graphs from now on; called by `compat.encoder_graphs`."""
        self._stock_graphs.graphs_cleared(manager)

    def embed_unpruned(self, **kwargs: object) -> Any:
        if self._stock_graphs.hold(kwargs):
            return self._stock_graphs.embed(kwargs)
        return super().embed_unpruned(**kwargs)

    def embed_images(
        self,
        images: Sequence[EncoderImage],
        plans: Sequence[ImagePlan],
        fields: Mapping[str, Any],
    ) -> list[torch.Tensor]:
        off = [place for place, plan in enumerate(plans) if plan.config.off]
        # An observer is to see unpruned images too, so it gets the tower's.
        if not off or self.on_selection is not None or not self._stock_graphs.hold(fields):
            return super().embed_images(images, plans, fields)
        whole = self.embed_unpruned(**self._stock_graphs.some(fields, off))
        embeddings = dict(zip(off, whole, strict=True))
        rest = [place for place in range(len(plans)) if place not in embeddings]
        pruned = super().embed_images(
            [images[place] for place in rest], [plans[place] for place in rest], fields
        )
        embeddings |= zip(rest, pruned, strict=True)
        return [embeddings[place] for place in range(len(plans))]
