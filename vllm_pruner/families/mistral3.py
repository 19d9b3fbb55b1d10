"""Mistral3: `Mistral3ForConditionalGeneration`, Mistral Small 3.x in its transformers form.

Follows `vllm/model_executor/models/mistral3.py` of vLLM 0.32. A token is 2 x 2 patches of Pixtral's
tower. `row_breaks` says what becomes of the breaks between rows; `pixtral` is Mistral's own form.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from vllm.model_executor.models.mistral3 import (
    Mistral3DummyInputsBuilder,
    Mistral3ForConditionalGeneration,
    Mistral3MultiModalProcessor,
    Mistral3ProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_pruner.families.llava import seen
from vllm_pruner.families.merging import MERGING
from vllm_pruner.families.row_breaks import RowsWithBreaks, cut, separators
from vllm_pruner.families.unsuited import check_shrinking
from vllm_pruner.family import Family
from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.tower import EncoderImage
from vllm_pruner.worker.pixtral_tower import PixtralTower

if TYPE_CHECKING:
    from vllm.config import VllmConfig

__all__ = ["MISTRAL3", "PrunedMistral3"]


def largest(info: Any) -> GridLayout:
    """Return the layout with which vLLM profiles memory; see `Family.largest`."""
    size = info.get_image_size_with_most_features()
    return layout(info, size.height, size.width, {})


def layout(info: Any, height: int, width: int, mm_kwargs: Mapping[str, object]) -> GridLayout:
    """Return the layout of an image after the processor has resized it; see `Family.layout`."""
    encoder = info.get_vision_encoder_info(mm_kwargs)
    columns, rows = encoder.get_patch_grid_size(image_width=width, image_height=height)
    return GridLayout(max(1, rows), max(1, columns))  # the processor refuses a side of 0 tokens


def images(hf_config: Any, image_input: Any) -> list[EncoderImage]:
    """Return the images of a batch; see `Family.images`."""
    edge = hf_config.vision_config.patch_size * hf_config.spatial_merge_size
    return [
        EncoderImage(pixels, GridLayout(pixels.shape[-2] // edge, pixels.shape[-1] // edge))
        for pixels in image_input["pixel_values"]
    ]


MISTRAL3 = Family(
    "mistral3",
    largest,
    layout,
    images,
    PixtralTower,
    seen,
    partial(check_shrinking, smaller="size"),
    cut,
    separators=separators,
    **MERGING,
)


class PrunedMistral3Info(PrunedInfo, Mistral3ProcessingInfo):
    """`Mistral3ProcessingInfo` with settings; see `PrunedInfo` for the changes."""

    family = MISTRAL3


class PrunedMistral3Processor(PrunedProcessor, Mistral3MultiModalProcessor):
    """`Mistral3MultiModalProcessor` with fewer placeholders; see `PrunedProcessor`."""


@MULTIMODAL_REGISTRY.register_processor(
    PrunedMistral3Processor, info=PrunedMistral3Info, dummy_inputs=Mistral3DummyInputsBuilder
)
class PrunedMistral3(RowsWithBreaks, Mistral3ForConditionalGeneration):
    """vLLM's Mistral3 with visual-token pruning; see `RowsWithBreaks`."""

    family = MISTRAL3

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        info = MULTIMODAL_REGISTRY.get_processing_info(vllm_config.model_config)
        token = info.get_hf_processor().image_break_token
        self.line_break = info.get_tokenizer().get_vocab()[token]
