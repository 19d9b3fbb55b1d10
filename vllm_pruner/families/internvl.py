"""InternVL in its transformers form: `InternVLForConditionalGeneration`.

Follows `vllm/model_executor/models/interns1.py` of vLLM 0.32. A frame of a video is one tile, named
in the prompt (`Frame1: `).

The processor cuts every picture into tiles, whatever the checkpoint's `crop_to_patches` is. vLLM
follows that setting when it looks for the largest picture, so this module finds it itself.
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

from vllm_pruner.families.intern_tiles import (
    PrunedInternInfo,
    intern_family,
    intern_tower,
    intern_videos,
)
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.worker.captured_model import CapturedModel
from vllm_pruner.worker.shuffle_tower import ShuffleTower

__all__ = ["INTERNVL", "PrunedInternVL"]


def tokens(info: Any, height: int, width: int, mm_kwargs: Mapping[str, object]) -> int:
    """Return the number of an image's tokens, as the processor produces them."""
    processor = info.get_hf_processor(**mm_kwargs)
    settings = _settings(info, mm_kwargs)
    tiles = processor.image_processor.get_number_of_image_patches(height, width, settings)
    return int(processor.image_seq_length * tiles)


def _settings(info: Any, mm_kwargs: Mapping[str, object]) -> dict[str, Any]:
    """Return the image processor's arguments, given nested or not."""
    merged = info.ctx.get_merged_mm_kwargs(mm_kwargs)
    return {"crop_to_patches": True, **merged, **merged.get("images_kwargs", {})}


def tower(model: Any) -> ShuffleTower:
    """Return the tower of a model; see `Family.tower`."""
    parts = (model.vision_tower, model.multi_modal_projector)
    return intern_tower(model, *parts, "encoder.layer", "attention.attn", "layernorm")


def seen(hf_config: Any, item: Mapping[str, Any]) -> torch.Tensor:
    """Return the tiles of an image, the thumbnail first; see `Family.seen`."""
    tiles: torch.Tensor = item["pixel_values"]
    return tiles.roll(1, dims=0)


_PIXELS = "pixel_values"

INTERNVL = intern_family(
    "internvl",
    _PIXELS,
    tokens,
    tower,
    seen,
    stock_captured=False,
    videos=intern_videos(_PIXELS),
)


class PrunedInternVLInfo(PrunedInternInfo, InternS1ProcessingInfo):
    """`InternS1ProcessingInfo` with settings; see `PrunedInternInfo` for the changes.

    Own changes:
    - memory is profiled with the largest picture, a row of as many tiles as allowed;
    - the token that stands for a video is the processor's, which the configuration does not name.
    """

    family = INTERNVL

    def get_image_size_with_most_features(self) -> ImageSize:
        most = self.get_hf_processor().image_processor.max_patches
        tiles = int(_settings(self, {}).get("max_patches", most))
        height, width = self.get_hf_config().vision_config.image_size
        return ImageSize(width=width * tiles, height=height)

    @property
    def video_token(self) -> int:
        token = self.get_hf_processor().video_token
        return int(self.get_tokenizer().get_vocab()[token])


class PrunedInternVLProcessor(PrunedProcessor, InternS1MultiModalProcessor):
    """`InternS1MultiModalProcessor` with fewer placeholders; see `PrunedProcessor`."""


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedInternVLProcessor, info=PrunedInternVLInfo, dummy_inputs=InternS1DummyInputsBuilder
)
class PrunedInternVL(CapturedModel, InternS1ForConditionalGeneration):
    """vLLM's InternVL with visual-token pruning; see `CapturedModel`."""

    family = INTERNVL
