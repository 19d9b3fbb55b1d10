"""InternVL as its authors publish it: `InternVLChatModel`, with vLLM's own processor.

Follows `vllm/model_executor/models/internvl.py` of vLLM 0.32. A frame of a video is one tile, named
in the prompt (`Frame1: `). Models whose tokenizer has no `<|video_pad|>` take no videos.

Methods that read the text after an image are refused: in this model's prompts an image is the text
"<image>", and a video "<video>", not a token of its own, and a tokenizer may merge it with the text
around it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from vllm.model_executor.models.internvl import (
    InternVLChatModel,
    InternVLDummyInputsBuilder,
    InternVLMultiModalProcessor,
    InternVLProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.transformers_utils.processors.internvl import IMAGENET_MEAN, IMAGENET_STD

from vllm_pruner.families import intern_tiles
from vllm_pruner.families.unsuited import check_one_grid, check_text
from vllm_pruner.methods.base import Method
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.worker.captured_model import CapturedModel
from vllm_pruner.worker.shuffle_tower import ShuffleTower

__all__ = ["INTERNVL_CHAT", "PrunedChatInfo", "PrunedInternVLChat"]


def tokens(info: Any, height: int, width: int, mm_kwargs: Mapping[str, object]) -> int:
    """Return the tokens of an image, as vLLM counts them.

    Raises:
        ConfigError: the tokens are in column order, as in no model since InternVL 1.2.
    """
    version = info.get_hf_config().ps_version
    if version == "v1":
        raise ConfigError(f"ps_version is {version!r}; allowed: 'v2', whose tokens are in rows")
    processor = info.get_hf_processor(**mm_kwargs)
    return int(
        info.get_num_image_tokens(image_width=width, image_height=height, processor=processor)
    )


def tower(model: Any) -> ShuffleTower:
    """Return the tower of a model; see `Family.tower`."""
    return intern_tiles.intern_tower(
        model, model.vision_model, model.mlp1, "encoder.layers", "attn.attn", norm=""
    )


def seen(hf_config: Any, item: Mapping[str, Any]) -> torch.Tensor:
    """Return the tiles of an image as bytes, the thumbnail first; see `Family.seen`.

    As bytes, because vLLM's image processor for this model does not tell how it normalises.
    """
    tiles: torch.Tensor = item["pixel_values_flat"].roll(1, dims=0).float().cpu()
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (IMAGENET_MEAN, IMAGENET_STD))
    return ((tiles * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def check_method(hf_config: Any, method: Method) -> None:
    """Refuse methods for one grid, and those that read text; see `Family.check_method`."""
    check_one_grid(hf_config, method)
    allowed = "methods that read no text, such as scope, or the model in its transformers form"
    check_text(hf_config, method, allowed)


_PIXELS = "pixel_values_flat"

INTERNVL_CHAT = intern_tiles.intern_family(
    "internvl_chat",
    _PIXELS,
    tokens,
    tower,
    seen,
    check_method=check_method,
    videos=intern_tiles.intern_videos(_PIXELS),
)


class PrunedChatInfo(intern_tiles.PrunedInternInfo):
    """A `PrunedInternInfo` of a model with vLLM's processor for InternVL.

    Own change: the token that an image consists of is the processor's.
    """

    @property
    def image_token(self) -> int:
        return int(self.get_hf_processor().ctx_image_token_id)


class PrunedInternVLChatInfo(PrunedChatInfo, InternVLProcessingInfo):
    """`InternVLProcessingInfo` with settings; see `PrunedChatInfo` for the changes.

    Own change: the token that a video consists of is the processor's.
    """

    family = INTERNVL_CHAT

    @property
    def video_token(self) -> int | None:
        return self.get_hf_processor().ctx_video_token_id


class PrunedInternVLChatProcessor(PrunedProcessor, InternVLMultiModalProcessor):
    """`InternVLMultiModalProcessor` with fewer placeholders; see `PrunedProcessor`."""


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedInternVLChatProcessor,
    info=PrunedInternVLChatInfo,
    dummy_inputs=InternVLDummyInputsBuilder,
)
class PrunedInternVLChat(CapturedModel, InternVLChatModel):
    """vLLM's InternVL with visual-token pruning; see `CapturedModel`."""

    family = INTERNVL_CHAT
