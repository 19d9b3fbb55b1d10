"""InternVL in its transformers form: `InternVLForConditionalGeneration`.

Follows `vllm/model_executor/models/interns1.py` of vLLM 0.32. Videos are served unpruned.

The processor cuts every picture into tiles, whatever the checkpoint's `crop_to_patches` says; vLLM
goes by the latter where it looks for the largest picture, so that is found here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from vllm.model_executor.models.interns1 import (
    InternS1DummyInputsBuilder,
    InternS1ForConditionalGeneration,
    InternS1MultiModalProcessor,
    InternS1ProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.parse import ImageSize

from vllm_pruner.families.intern_tiles import intern_family, intern_tower
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.worker.model import PrunedModel
from vllm_pruner.worker.shuffle_tower import ShuffleTower

__all__ = ["INTERNVL", "PrunedInternVL"]


def tokens(info: Any, height: int, width: int, mm_kwargs: Mapping[str, object]) -> int:
    """Return the tokens of an image, as the processor makes them."""
    processor = info.get_hf_processor(**mm_kwargs)
    settings = _settings(info, mm_kwargs)
    tiles = processor.image_processor.get_number_of_image_patches(height, width, settings)
    return int(processor.image_seq_length * tiles)


def _settings(info: Any, mm_kwargs: Mapping[str, object]) -> dict[str, Any]:
    """Return what the image processor is called with, nested or not."""
    merged = info.ctx.get_merged_mm_kwargs(mm_kwargs)
    return {"crop_to_patches": True, **merged, **merged.get("images_kwargs", {})}


def tower(model: Any) -> ShuffleTower:
    """Return what runs the tower; see `Family.tower`."""
    parts = (model.vision_tower, model.multi_modal_projector)
    return intern_tower(model, *parts, "encoder.layer", "attention.attn")


def seen(hf_config: Any, item: Mapping[str, Any]) -> torch.Tensor:
    """Return the tiles of an image, the thumbnail first; see `Family.seen`."""
    tiles: torch.Tensor = item["pixel_values"]
    return tiles.roll(1, dims=0)


INTERNVL = intern_family("internvl", "pixel_values", tokens, tower, seen)


class PrunedInternVLInfo(PrunedInfo, InternS1ProcessingInfo):
    """`InternS1ProcessingInfo` with settings; see `PrunedInfo` for the changes.

    Change of its own: the picture that memory is profiled with is the largest, a row of as many
    tiles as there may be.
    """

    family = INTERNVL

    def get_image_size_with_most_features(self) -> ImageSize:
        most = self.get_hf_processor().image_processor.max_patches
        tiles = int(_settings(self, {}).get("max_patches", most))
        height, width = self.get_hf_config().vision_config.image_size
        return ImageSize(width=width * tiles, height=height)


class PrunedInternVLProcessor(PrunedProcessor, InternS1MultiModalProcessor):
    """`InternS1MultiModalProcessor` with fewer placeholders; see `PrunedProcessor`."""


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedInternVLProcessor, info=PrunedInternVLInfo, dummy_inputs=InternS1DummyInputsBuilder
)
class PrunedInternVL(PrunedModel, InternS1ForConditionalGeneration):
    """vLLM's InternVL, keeping the visual tokens that matter; see `PrunedModel`."""

    family = INTERNVL
