"""vLLM's interface for towers in CUDA graphs, `SupportsEncoderCudaGraph`, over `tower_graphs`."""

from __future__ import annotations

import logging
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from vllm_pruner import compat
from vllm_pruner.worker.model import PrunedModel
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


class CapturedModel(PrunedModel):
    """A `PrunedModel` whose tower can be captured in CUDA graphs.

    Changes besides those of `PrunedModel`:
    - `SupportsEncoderCudaGraph`, by which vLLM's runners create, profile and capture the graphs.
      `modalities` is empty, so that a runner does not replay them instead of `embed_multimodal`; an
      item is an `EncoderImage` that is not in the feature cache. Follows vLLM 0.32's
      `model_executor/models/interfaces.py` and `v1/worker/encoder_cudagraph.py`.
    """

    supports_encoder_cudagraph: ClassVar[Literal[True]] = True

    tower: CapturedTower

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self._graphs = TowerGraphs(self.tower, self._encoder.cached)
        if not compat.encoder_graphs_known():
            return
        self._encoder.graphs = self._graphs
        compat.tell_of_encoder_graphs()
        compat.set_graph_budgets(vllm_config, self.tower.graph_rows(self._rows_at_once))

    def graphs_captured(self, manager: Any, seconds: float, size: int) -> None:
        """Replay a manager's graphs from now on; called by `compat.encoder_graphs`."""
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
        """Run without graphs from now on; called by `compat.encoder_graphs`."""
        self._graphs.detach(manager)

    def get_encoder_cudagraph_config(self) -> EncoderCudaGraphConfig:
        from vllm.v1.worker.encoder_cudagraph_defs import EncoderCudaGraphConfig

        return EncoderCudaGraphConfig(
            modalities=[],
            buffer_keys=list(self.tower.padding),
            out_hidden_size=self._graphs.format.width,
            padding_logics={key: pad for key, pad in self.tower.padding.items() if pad},
        )

    def get_input_modality(self, mm_kwargs: dict[str, Any]) -> str:
        return "image"

    def get_max_frames_per_video(self) -> int:
        return 1

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
