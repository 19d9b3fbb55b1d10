"""LLaVA-1.5 and its kin: `LlavaForConditionalGeneration` with a CLIP or SigLIP tower.

Follows `vllm/model_executor/models/llava.py` of vLLM 0.32. An image is one crop.
"""

from __future__ import annotations

from typing import Any

from vllm.model_executor.models.llava import (
    LlavaDummyInputsBuilder,
    LlavaForConditionalGeneration,
    LlavaMultiModalProcessor,
    LlavaProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_pruner.layout.crop_layout import CropLayout
from vllm_pruner.methods.base import Method, Need
from vllm_pruner.prompt.processor import PrunedInfo, PrunedProcessor
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.worker.model import CroppedImage, PrunedModel
from vllm_pruner.worker.tower import crop_grid, crop_tokens

__all__ = ["PrunedLlava", "check_method", "visual_tokens"]


def visual_tokens(hf_config: Any) -> int:
    """Return the visual tokens of an image, unpruned.

    Raises:
        ConfigError: the vision tower is one that cannot be pruned here.
    """
    return crop_tokens(hf_config)


def check_method(hf_config: Any, method: Method) -> None:
    """Refuse a method that this model cannot serve.

    Raises:
        ConfigError: one sentence with the method and the reason.
    """
    if Need.GRID in method.needs and crop_grid(hf_config) is None:
        raise ConfigError(
            f"method is {method.name!r}, which needs the tower's whole grid of patches, but "
            f"vision_feature_select_strategy is {hf_config.vision_feature_select_strategy!r}; "
            "allowed: 'full' with this tower, or a method without a grid"
        )


class PrunedLlavaInfo(PrunedInfo, LlavaProcessingInfo):
    """`LlavaProcessingInfo` with settings; see `PrunedInfo` for the changes."""

    check_method = staticmethod(check_method)

    def image_tokens(self, size: object) -> int:
        """The same for every image."""
        return self.get_max_image_tokens()


class PrunedLlavaProcessor(PrunedProcessor, LlavaMultiModalProcessor):
    """`LlavaMultiModalProcessor` with fewer placeholders; see `PrunedProcessor`."""


@MULTIMODAL_REGISTRY.register_processor(
    PrunedLlavaProcessor, info=PrunedLlavaInfo, dummy_inputs=LlavaDummyInputsBuilder
)
class PrunedLlava(PrunedModel, LlavaForConditionalGeneration):
    """vLLM's LLaVA, keeping the visual tokens that matter; see `PrunedModel`.

    Changes of its own: LoRA on the tower is told the tower's own token count.
    """

    def _largest_image(self) -> tuple[int, int]:
        return crop_tokens(self.config), 1

    def _cropped(self, image_input: Any) -> list[CroppedImage]:
        layout = CropLayout(crop_tokens(self.config))
        return [CroppedImage(crop, layout) for crop in image_input["pixel_values"].split(1)]

    def get_mm_lora_token_counts(
        self, *, modality: str, mm_kwargs: Any, num_mm_embeds: int
    ) -> tuple[int, int | None]:
        return crop_tokens(self.config), num_mm_embeds
