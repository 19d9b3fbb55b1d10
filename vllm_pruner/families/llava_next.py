"""LLaVA-NeXT (LLaVA-1.6): `LlavaNextForConditionalGeneration` with a CLIP or SigLIP tower.

Follows `vllm/model_executor/models/llava_next.py` of vLLM 0.32, which always merges crops as
`spatial_unpad`: the base crop, then the raster of the others without padding, a newline token after
each row. A rate or a number of tokens means all of these; `newlines` says how they share it.
"""

from __future__ import annotations

from typing import Any

from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape
from vllm.model_executor.models.llava import LlavaDummyInputsBuilder
from vllm.model_executor.models.llava_next import (
    LlavaNextForConditionalGeneration,
    LlavaNextMultiModalProcessor,
    LlavaNextProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_pruner.layout.crop_layout import CropLayout
from vllm_pruner.methods.base import Method, Need
from vllm_pruner.prompt.processor import PrunedInfo, PrunedProcessor
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.worker.model import CroppedImage, PrunedModel
from vllm_pruner.worker.tower import crop_tokens

__all__ = ["PrunedLlavaNext", "check_method", "layout_of", "visual_tokens"]

_MERGE = "spatial_unpad"


def visual_tokens(hf_config: Any) -> int:
    """Return the most visual tokens that an image has, unpruned.

    Raises:
        ConfigError: the tower or the merging of crops is one that cannot be pruned here.
    """
    merge = getattr(hf_config, "mm_patch_merge_type", _MERGE)
    if merge != _MERGE:
        raise ConfigError(f"mm_patch_merge_type is {merge!r}; allowed: {_MERGE!r}, as vLLM merges")
    if not isinstance(hf_config.vision_feature_layer, int):
        raise ConfigError(
            f"vision_feature_layer is {hf_config.vision_feature_layer}; allowed: one layer"
        )
    tower, tokens = hf_config.vision_config, crop_tokens(hf_config)
    side = tower.image_size // tower.patch_size
    if tokens != side**2:
        raise ConfigError(
            f"a crop has {tokens} visual tokens under vision_feature_select_strategy "
            f"{hf_config.vision_feature_select_strategy!r}; allowed: {side**2}, a square"
        )
    return _largest(hf_config).tokens


def check_method(hf_config: Any, method: Method) -> None:
    """Refuse a method that this model cannot serve.

    Raises:
        ConfigError: one sentence with the method and the reason.
    """
    whole_images = method.merges or method.repeats or method.shrink or Need.GRID in method.needs
    if whole_images:
        raise ConfigError(
            f"method is {method.name!r}, which works on an image of one grid, but an image of this "
            "model is several crops with newlines between rows; allowed: methods that choose "
            "tokens one by one, such as vispruner"
        )


def layout_of(hf_config: Any, height: int, width: int) -> CropLayout:
    """Return the layout of an image of so many pixels."""
    tower = hf_config.vision_config
    side = tower.image_size // tower.patch_size
    grid = get_anyres_image_grid_shape(
        (height, width), hf_config.image_grid_pinpoints, tower.image_size
    )
    rows, columns = grid[0] * side, grid[1] * side
    top = left = 0
    # vLLM's own arithmetic, rounding included: its processor counts placeholders with it.
    if width / height > columns / rows:
        top = (rows - int(round(height * (columns / width), 7))) // 2
    else:
        left = (columns - int(round(width * (rows / height), 7))) // 2
    return CropLayout(side**2, side, grid, (top, rows - top), (left, columns - left))


def _largest(hf_config: Any) -> CropLayout:
    """The layout with the most tokens, and so the most crops: pictures that fill their grid."""
    layouts = (layout_of(hf_config, *size) for size in hf_config.image_grid_pinpoints)
    return max(layouts, key=lambda layout: layout.tokens)


class PrunedLlavaNextInfo(PrunedInfo, LlavaNextProcessingInfo):
    """`LlavaNextProcessingInfo` with settings; see `PrunedInfo` for the changes."""

    check_method = staticmethod(check_method)


class PrunedLlavaNextProcessor(PrunedProcessor, LlavaNextMultiModalProcessor[PrunedLlavaNextInfo]):
    """`LlavaNextMultiModalProcessor` with fewer placeholders; see `PrunedProcessor`."""


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedLlavaNextProcessor, info=PrunedLlavaNextInfo, dummy_inputs=LlavaDummyInputsBuilder
)
class PrunedLlavaNext(PrunedModel, LlavaNextForConditionalGeneration):
    """vLLM's LLaVA-NeXT, keeping the visual tokens that matter; see `PrunedModel`.

    Changes of its own:
    - crops that only pad an image to the largest of its batch are not encoded;
    - LoRA on the connector is told the tokens that it projects.
    """

    def _largest_image(self) -> tuple[int, int]:
        layout = _largest(self.config)
        return layout.tokens, layout.crops

    def _cropped(self, image_input: Any) -> list[CroppedImage]:
        sizes = image_input["image_sizes"].tolist()  # on the CPU already
        layouts = [layout_of(self.config, *size) for size in sizes]
        return [
            CroppedImage(pixels[: layout.crops], layout)
            for pixels, layout in zip(image_input["pixel_values"], layouts, strict=True)
        ]

    def get_mm_lora_token_counts(
        self, *, modality: str, mm_kwargs: Any, num_mm_embeds: int
    ) -> tuple[int, int | None]:
        tower, _ = super().get_mm_lora_token_counts(
            modality=modality, mm_kwargs=mm_kwargs, num_mm_embeds=num_mm_embeds
        )
        return tower, num_mm_embeds
