"""GLM-4.1V, `Glm4vForConditionalGeneration`; and GLM-4.5V and 4.6V, mixtures of experts,
`Glm4vMoeForConditionalGeneration`.

Follows `vllm/model_executor/models/glm4_1v.py` of vLLM 0.32. An image of any resolution is one grid
of tokens, each 2 x 2 patches as in Qwen-VL; see `packed_tower` and `mrope`. A video is a sequence
of frames that consist of image tokens.
"""

from __future__ import annotations

from vllm.model_executor.models.glm4_1v import (
    Glm4vDummyInputsBuilder,
    Glm4vForConditionalGeneration,
    Glm4vMoeForConditionalGeneration,
    Glm4vMultiModalProcessor,
    Glm4vProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.parse import ImageSize

from vllm_pruner.families.glm_grid import edge, glm_family, largest
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.worker.captured_model import CapturedModel
from vllm_pruner.worker.mrope import MRopeModel

__all__ = ["GLM4V", "PrunedGlm4v", "PrunedGlm4vMoe"]

GLM4V = glm_family("glm4v")


class PrunedGlm4vInfo(PrunedInfo, Glm4vProcessingInfo):
    """`Glm4vProcessingInfo` with settings; see `PrunedInfo` for the changes."""

    family = GLM4V

    def get_image_size_with_most_features(self) -> ImageSize:
        """Return the size of vLLM's dummy images, which has the `largest` layout."""
        most, side = largest(self), edge(self.get_image_processor())
        return ImageSize(width=most.columns * side, height=most.rows * side)


class PrunedGlm4vProcessor(PrunedProcessor, Glm4vMultiModalProcessor):
    """`Glm4vMultiModalProcessor` with fewer placeholders; see `PrunedProcessor`."""


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedGlm4vProcessor, info=PrunedGlm4vInfo, dummy_inputs=Glm4vDummyInputsBuilder
)
class PrunedGlm4v(MRopeModel, CapturedModel, Glm4vForConditionalGeneration):
    """vLLM's GLM-4.1V with visual-token pruning; see `MRopeModel` and `CapturedModel`."""

    family = GLM4V


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedGlm4vProcessor, info=PrunedGlm4vInfo, dummy_inputs=Glm4vDummyInputsBuilder
)
class PrunedGlm4vMoe(MRopeModel, CapturedModel, Glm4vMoeForConditionalGeneration):
    """vLLM's GLM-4.5V and 4.6V with visual-token pruning; see `MRopeModel` and `CapturedModel`."""

    family = GLM4V
