"""GLM-5-Next, published as GLM-5.3-Flash: `Glm5NextForConditionalGeneration`.

Follows `vllm/models/glm5next` of vLLM 0.32. Images and videos are laid out as GLM-V's, by a tower
of the same parts and another processor; see `glm5_grid` and `packed_tower`. The decoder has no
rotary positions: its order is that of the tokens.
"""

from __future__ import annotations

from vllm.model_executor.models.glm4_1v import Glm4vDummyInputsBuilder
from vllm.models.glm5next import Glm5NextForConditionalGeneration
from vllm.models.glm5next.common.multimodal import (
    Glm5NextMultiModalProcessor,
    Glm5NextProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.parse import ImageSize

from vllm_pruner.families.glm5_grid import glm5_family, largest
from vllm_pruner.families.glm_grid import edge
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.worker.captured_model import CapturedModel

__all__ = ["GLM5_NEXT", "PrunedGlm5Next"]

GLM5_NEXT = glm5_family("glm5_next")


class PrunedGlm5NextInfo(PrunedInfo, Glm5NextProcessingInfo):
    """`Glm5NextProcessingInfo` with settings; see `PrunedInfo` for the changes."""

    family = GLM5_NEXT

    def get_image_size_with_most_features(self) -> ImageSize:
        """Return the size of vLLM's dummy images, which has the `largest` layout."""
        most, side = largest(self), edge(self.get_image_processor())
        return ImageSize(width=most.columns * side, height=most.rows * side)


class PrunedGlm5NextProcessor(PrunedProcessor, Glm5NextMultiModalProcessor):
    """`Glm5NextMultiModalProcessor` with fewer placeholders; see `PrunedProcessor`."""


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedGlm5NextProcessor, info=PrunedGlm5NextInfo, dummy_inputs=Glm4vDummyInputsBuilder
)
class PrunedGlm5Next(CapturedModel, Glm5NextForConditionalGeneration):
    """vLLM's GLM-5-Next with visual-token pruning; see `CapturedModel`."""

    family = GLM5_NEXT
