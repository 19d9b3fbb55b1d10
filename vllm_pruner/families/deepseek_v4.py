"""DeepSeek-V4 with a vision tower: `DeepseekV4ForConditionalGeneration`, which vLLM makes of a
`DeepseekV4ForCausalLM` whose configuration has one (DeepSeek-V4-Flash-Vision-Exp).

Follows `vllm/models/deepseek_v4/common` of vLLM 0.32. An image of any resolution is one grid of
tokens, each 3 x 3 patches; see `deepseek_block` and `deepseek_tower`. Positions are plain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from vllm.models import deepseek_v4
from vllm.models.deepseek_v4.common.mm_preprocess import (
    IMAGE,
    IMAGE_SENTINEL_BASE_ID,
    IMAGE_SENTINEL_TOKEN_NAMES,
    DeepseekV4VLDummyInputsBuilder,
    DeepseekV4VLMultiModalProcessor,
    DeepseekV4VLProcessingInfo,
)
from vllm.models.deepseek_v4.common.vl_model import DeepseekV4ForConditionalGeneration
from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_pruner.families.deepseek_block import cut, layout
from vllm_pruner.families.merging import MERGING
from vllm_pruner.families.row_breaks import RowsWithBreaks, separators
from vllm_pruner.families.unsuited import check_shrinking
from vllm_pruner.family import Family
from vllm_pruner.layout.paired_rows import PairedRows
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.tower import EncoderImage
from vllm_pruner.worker.deepseek_tower import DeepseekTower

__all__ = ["DEEPSEEK_V4", "PrunedDeepseekV4"]

_MIDDLE = (0.5, 0.5, 0.5)


def largest(info: Any) -> PairedRows:
    """Return the layout that vLLM profiles memory with; see `Family.largest`.

    Raises:
        ConfigError: vLLM has no such model for this kind of machine.
    """
    here = deepseek_v4.DeepseekV4ForConditionalGeneration
    if here is not DeepseekV4ForConditionalGeneration:
        raise ConfigError(
            f"vLLM's model of DeepSeek-V4 with vision is {here.__module__} on this machine; "
            "allowed: a GPU of NVIDIA or AMD, for which vLLM has one"
        )
    size = info.get_image_size_with_most_features()
    return layout(info, size.height, size.width, {})


def images(hf_config: Any, image_input: Any) -> list[EncoderImage]:
    """Return the images of a batch; see `Family.images`."""
    side = hf_config.vision_downsample_ratio
    sizes = [(high, wide) for high, wide in image_input["vit_grid"].tolist()]
    pixels = image_input["patches"].split([high * wide for high, wide in sizes])
    return [
        EncoderImage(each, PairedRows(-(-high // side), -(-wide // side), high=high, wide=wide))
        for each, (high, wide) in zip(pixels, sizes, strict=True)
    ]


def seen(hf_config: Any, item: Mapping[str, Any]) -> torch.Tensor:
    """Return an image as one crop; see `Family.seen`."""
    high, wide = item["vit_grid"].flatten().tolist()
    patches: torch.Tensor = item["patches"].float().unflatten(0, (high, wide))
    return patches.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2).unsqueeze(0)


DEEPSEEK_V4 = Family(
    "deepseek_v4",
    largest,
    layout,
    images,
    DeepseekTower,
    seen,
    partial(check_shrinking, smaller="vision_max_n_token", place="config.json"),
    cut,
    separators=separators,
    **MERGING,
)


class PrunedDeepseekV4Info(PrunedInfo, DeepseekV4VLProcessingInfo):
    """`DeepseekV4VLProcessingInfo` with settings; see `PrunedInfo` for the changes. The most tokens
    of an image are those of its whole block, as in stock vLLM."""

    family = DEEPSEEK_V4
    mark_words = IMAGE_SENTINEL_TOKEN_NAMES
    around_message = ("<｜User｜>", "<｜Assistant｜>")

    @property
    def image_token(self) -> int:
        return IMAGE_SENTINEL_BASE_ID + IMAGE

    @property
    def image_sign(self) -> int:
        return self.get_image_placeholder_token_id()

    @property
    def marks(self) -> frozenset[int]:
        return super().marks | {self.image_sign}

    def normalisation(self) -> tuple[Sequence[float], Sequence[float]]:
        return _MIDDLE, _MIDDLE

    def get_mm_max_tokens_per_item(
        self, seq_len: int, mm_counts: Mapping[str, int]
    ) -> Mapping[str, int]:
        return DeepseekV4VLProcessingInfo.get_mm_max_tokens_per_item(self, seq_len, mm_counts)


class PrunedDeepseekV4Processor(PrunedProcessor, DeepseekV4VLMultiModalProcessor):
    """`DeepseekV4VLMultiModalProcessor` with fewer placeholders; see `PrunedProcessor`."""


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedDeepseekV4Processor,
    info=PrunedDeepseekV4Info,
    dummy_inputs=DeepseekV4VLDummyInputsBuilder,
)
class PrunedDeepseekV4(RowsWithBreaks, DeepseekV4ForConditionalGeneration):
    """vLLM's DeepSeek-V4, keeping the visual tokens that matter; see `RowsWithBreaks`."""

    family = DEEPSEEK_V4

    def break_row(self, index: torch.Tensor) -> torch.Tensor:
        """Return the break that vLLM puts in the place of one in the prompt."""
        assert self.aligner is not None, "it has made rows"
        row: torch.Tensor = self.image_newline.to(self.aligner.w1.weight.dtype)
        return row.unsqueeze(0)
