"""Cosmos 3: `Cosmos3ForConditionalGeneration`, Qwen3-VL with the weights named otherwise.

Follows `vllm/model_executor/models/cosmos3.py` of vLLM 0.32, which loads of a checkpoint the part
that understands pictures.
"""

from __future__ import annotations

from typing import Any

from vllm.model_executor.models.cosmos3 import Cosmos3ForConditionalGeneration
from vllm.model_executor.models.qwen3_vl import Qwen3VLDummyInputsBuilder, Qwen3VLProcessingInfo
from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_pruner.families.qwen3_vl import PrunedQwen3VLProcessor
from vllm_pruner.families.qwen_grid import QWEN3_VIDEOS, qwen_family
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.worker.captured_model import CapturedModel
from vllm_pruner.worker.mrope import MRopeModel

__all__ = ["COSMOS3", "PrunedCosmos3"]

COSMOS3 = qwen_family("cosmos3", QWEN3_VIDEOS)


class PrunedCosmos3Info(PrunedInfo, Qwen3VLProcessingInfo):
    """`Qwen3VLProcessingInfo` with settings; see `PrunedInfo` for the changes.

    Own change: the configuration may be of any class. vLLM's `Cosmos3ProcessingInfo`, which 0.31
    lacks, asks for the one class that it is of.
    """

    family = COSMOS3

    def get_hf_config(self) -> Any:
        return self.ctx.get_hf_config()


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedQwen3VLProcessor, info=PrunedCosmos3Info, dummy_inputs=Qwen3VLDummyInputsBuilder
)
class PrunedCosmos3(MRopeModel, CapturedModel, Cosmos3ForConditionalGeneration):
    """vLLM's Cosmos 3 with visual-token pruning; see `MRopeModel` and `CapturedModel`."""

    family = COSMOS3
