"""vLLM's interface for towers in CUDA graphs, `SupportsEncoderCudaGraph`, over `tower_graphs`."""

from __future__ import annotations

import logging
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from vllm_pruner import compat
from vllm_pruner.worker.replayed_model import ReplayedModel
from vllm_pruner.worker.tower_graphs import IMAGES, TowerGraphs

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.v1.worker.encoder_cudagraph_defs import (
        EncoderCudaGraphCaptureInputs,
        EncoderCudaGraphConfig,
        EncoderCudaGraphReplayBuffers,
        EncoderItemSpec,
    )

    from vllm_pruner.tower import CapturedTower

__all__ = ["CapturedModel"]

logger = logging.getLogger("vllm.vtprune")

_ANSWERS = ("graphs_captured", "get_encoder_cudagraph_config", *compat.GRAPH_METHODS)
"""What a manager asks a model, and tells it."""


class CapturedModel(ReplayedModel):
    """A `ReplayedModel` whose tower can be captured in CUDA graphs of ours, for pruned images too.

    Changes besides those of `ReplayedModel`:
    - `SupportsEncoderCudaGraph`, by which vLLM's runners create, profile and capture the graphs.
      `modalities` is empty, so that a runner does not replay them instead of `embed_multimodal`; an
      item is an `EncoderImage` that is not in the feature cache. Follows vLLM 0.32's
      `model_executor/models/interfaces.py` and `v1/worker/encoder_cudagraph.py`;
    - vLLM's own graphs, if it has any, are captured beside them; see `Family.leaves_graphs` for
      where they are captured alone.
    """

    supports_encoder_cudagraph: ClassVar[Literal[True]] = True

    tower: CapturedTower

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self._graphs = TowerGraphs(self.tower, self._encoder.cached)
        self._budgets: list[int] = []
        if not compat.encoder_graphs_known():
            return
        if self.family.leaves_graphs(self._server_config):
            self._leave_graphs()
            return
        self._encoder.graphs = self._graphs
        self.graphs_for = "pruned images" if self.family.stock_captured else "images"
        rows = self.tower.graph_rows(self._rows_at_once)
        self._budgets = compat.set_graph_budgets(vllm_config, rows)

    def _leave_graphs(self) -> None:
        """Have vLLM's own methods answer its manager, and one another, in place of those below."""
        for name in _ANSWERS:
            setattr(self, name, getattr(super(), name))

    def manager_beside(self, manager: Any) -> Any:
        """Return a manager of vLLM's own graphs, which is captured and cleared with the one of
        ours; None if they are captured alone, or there are none, or stock vLLM would not replay
        them. Called by `compat.encoder_graphs`."""
        family, stock = self.family, self._stock_graphs
        if not family.stock_captured or family.leaves_graphs(self._server_config):
            return None
        if not stock.get_encoder_cudagraph_config().modalities:  # vLLM prunes videos itself
            return None
        return stock.beside(manager, self._budgets, self._encoder.device)

    def graphs_captured(self, manager: Any, seconds: float, size: int) -> None:
        self._graphs.attach(manager)
        logger.info(
            "vtprune: the vision tower is in %d CUDA graphs, for %s visual tokens: captured in "
            "%.1f s, %d MiB",
            manager.get_num_graphs_to_capture(),
            ", ".join(map(str, manager.token_budgets)),
            seconds,
            size >> 20,
        )

    def graphs_cleared(self, manager: Any) -> None:
        self._graphs.detach(manager)
        super().graphs_cleared(manager)

    def get_encoder_cudagraph_config(self) -> EncoderCudaGraphConfig:
        from vllm.v1.worker.encoder_cudagraph_defs import EncoderCudaGraphConfig

        return EncoderCudaGraphConfig(
            modalities=[],
            buffer_keys=list(self.tower.padding),
            out_hidden_size=self._graphs.format.width,
            padding_logics={key: pad for key, pad in self.tower.padding.items() if pad},
        )

    # What vLLM's own class asks itself, of its batches, is answered by it if it has graphs.

    def get_input_modality(self, mm_kwargs: dict[str, Any]) -> str:
        own = self._stock_graphs
        return own.get_input_modality(mm_kwargs) if self.family.stock_captured else "image"

    def get_max_frames_per_video(self) -> int:
        own = self._stock_graphs
        return own.get_max_frames_per_video() if self.family.stock_captured else 1

    def get_encoder_cudagraph_budget_range(self, vllm_config: VllmConfig) -> tuple[int, int]:
        rows = self.tower.graph_rows(self._rows_at_once)
        return rows[0], rows[-1]

    def get_encoder_cudagraph_item_specs(self, mm_kwargs: dict[str, Any]) -> list[EncoderItemSpec]:
        from vllm.v1.worker.encoder_cudagraph_defs import EncoderItemSpec

        return [
            EncoderItemSpec(image.layout.encoded * self.tower.patches_per_row, image.layout.encoded)
            for image in mm_kwargs[IMAGES]
        ]

    def select_encoder_cudagraph_items(
        self, mm_kwargs: dict[str, Any], indices: list[int]
    ) -> dict[str, Any]:
        return {IMAGES: [mm_kwargs[IMAGES][index] for index in indices]}

    def prepare_encoder_cudagraph_capture_inputs(
        self,
        token_budget: int,
        max_batch_size: int,
        max_frames_per_batch: int,
        device: torch.device,
        dtype: torch.dtype,
        path: str = "default",
        axis_keys: tuple[Hashable, ...] | None = None,
    ) -> EncoderCudaGraphCaptureInputs:
        from vllm.v1.worker.encoder_cudagraph_defs import EncoderCudaGraphCaptureInputs

        values = self.tower.blank(token_budget, max_batch_size, device, dtype)
        return EncoderCudaGraphCaptureInputs(values)

    def prepare_encoder_cudagraph_replay_buffers(
        self,
        mm_kwargs: dict[str, Any],
        max_batch_size: int,
        max_frames_per_batch: int,
        path: str = "default",
    ) -> EncoderCudaGraphReplayBuffers:
        from vllm.v1.worker.encoder_cudagraph_defs import EncoderCudaGraphReplayBuffers

        return EncoderCudaGraphReplayBuffers(
            {**self.tower.inputs(mm_kwargs[IMAGES], max_batch_size)}
        )

    def encoder_cudagraph_forward(
        self, inputs: dict[str, torch.Tensor], path: str = "default"
    ) -> torch.Tensor:
        return self._graphs.forward(inputs)

    def encoder_eager_forward(
        self, mm_kwargs: dict[str, Any], path: str = "default"
    ) -> torch.Tensor:
        return self._graphs.forward(self.tower.inputs(mm_kwargs[IMAGES]))

    def postprocess_encoder_output(
        self,
        outputs: dict[str, torch.Tensor],
        indices: list[int],
        per_item_out_tokens: list[int],
        dest: dict[int, torch.Tensor] | list[torch.Tensor | None],
        clone: bool = False,
        batch_mm_kwargs: dict[str, Any] | None = None,
    ) -> None:
        self._graphs.scatter(outputs["default"], indices, per_item_out_tokens, dest)
