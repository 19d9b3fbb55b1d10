"""GLM-OCR: `GlmOcrForConditionalGeneration`, which reads documents.

Follows `vllm/model_executor/models/glm_ocr.py` of vLLM 0.32. An image of any resolution is one grid
of tokens, as GLM-V's, by the same processors; see `glm_grid`, `glm_ocr_tower` and `mrope`. What is
pruned by default is what is empty (`READING`).
"""

from __future__ import annotations

from dataclasses import replace

from vllm.model_executor.models.glm4_1v import Glm4vDummyInputsBuilder
from vllm.model_executor.models.glm_ocr import GlmOcrForConditionalGeneration
from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_pruner.families.glm4v import PrunedGlm4vInfo, PrunedGlm4vProcessor
from vllm_pruner.families.glm_grid import glm_family
from vllm_pruner.families.merging import READING
from vllm_pruner.worker.glm_ocr_tower import GlmOcrTower
from vllm_pruner.worker.mrope import MRopeModel

__all__ = ["GLM_OCR", "PrunedGlmOcr"]

GLM_OCR = replace(
    glm_family("glm_ocr"),
    tower=GlmOcrTower,
    captured=False,
    stock_captured=False,  # vLLM's class says so, but its tower takes no buffers
    **READING,
)


class PrunedGlmOcrInfo(PrunedGlm4vInfo):
    """GLM-V's processing info, which vLLM has for both, with settings."""

    family = GLM_OCR


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedGlm4vProcessor, info=PrunedGlmOcrInfo, dummy_inputs=Glm4vDummyInputsBuilder
)
class PrunedGlmOcr(MRopeModel, GlmOcrForConditionalGeneration):
    """vLLM's GLM-OCR, keeping the visual tokens that show something; see `MRopeModel`."""

    family = GLM_OCR
