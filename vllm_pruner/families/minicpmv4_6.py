"""MiniCPM-V 4.6: `MiniCPMV4_6ForConditionalGeneration`, the first without a resampler.

Follows `vllm/model_executor/models/minicpmv4_6.py` of vLLM 0.32. An image is the whole picture and
possibly slices of it, each with marks around (`<image>`, `<slice>`) and its number in front
(`minicpm_slices`, `slice_tower`). Marks and line breaks behind rows of slices all stay, and each
slice has a fixed share of the budget; `crop_budget` "joint" acts as "per_crop" here. Positions are
plain: Qwen3.5's decoder has three, of which vLLM makes one.

Videos are pictures with slices one after the other. They are left whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from vllm.model_executor.models.minicpmv import MiniCPMVDummyInputsBuilder
from vllm.model_executor.models.minicpmv4_6 import (
    MiniCPMV4_6ForConditionalGeneration,
    MiniCPMV4_6MultiModalProcessor,
    MiniCPMV4_6ProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.parse import ImageProcessorItems, ImageSize

from vllm_pruner.families.merging import MERGING
from vllm_pruner.families.minicpm_slices import (
    SLICES,
    images,
    largest,
    layout,
    seen,
    size_with_most,
)
from vllm_pruner.families.unsuited import check_one_grid
from vllm_pruner.family import Family
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.worker.model import PrunedModel
from vllm_pruner.worker.slice_tower import SliceTower

if TYPE_CHECKING:
    from transformers import BatchFeature
    from vllm.multimodal.parse import MultiModalDataItems

__all__ = ["MINICPMV4_6", "PrunedMiniCPMV4_6", "SlicedInfo", "SlicedModel", "SlicedProcessor"]

MINICPMV4_6 = Family(
    "minicpmv4_6", largest, layout, images, SliceTower, seen, check_one_grid, **MERGING
)


class SlicedInfo(PrunedInfo):
    """A `PrunedInfo` of a MiniCPM-V.

    Own changes: vLLM's dummy images have most tokens, and so have its videos' frames not.
    """

    @property
    def most_slices(self) -> int:
        """The slices of an image at most, unless its request says so."""
        stock: Any = self
        return int(stock.get_image_processor().max_slice_nums)

    @cached_property
    def _size_with_most(self) -> tuple[int, int]:
        return size_with_most(self)

    def get_image_size_with_most_features(self) -> ImageSize:
        """Return the size of the `largest` layout."""
        height, width = self._size_with_most
        return ImageSize(width=width, height=height)


class PrunedMiniCPMV4_6Info(SlicedInfo, MiniCPMV4_6ProcessingInfo):
    """`MiniCPMV4_6ProcessingInfo` with settings; see `PrunedInfo` for the changes."""

    family = MINICPMV4_6


class SlicedProcessor(PrunedProcessor):
    """A `PrunedProcessor` of a MiniCPM-V.

    Own changes: an image's grid of slices is a field, and the sizes of slices stay on the CPU.
    """

    def _apply_hf_processor_main(
        self, mm_items: MultiModalDataItems, hf_kwargs: Mapping[str, object]
    ) -> BatchFeature:
        output = super()._apply_hf_processor_main(mm_items, hf_kwargs)
        if "tgt_sizes" in output:
            items = mm_items.get_items("image", ImageProcessorItems)
            sizes = [items.get_image_size(place) for place in range(len(items))]
            found = [layout(self.info, each.height, each.width, hf_kwargs) for each in sizes]
            output[SLICES] = torch.tensor([each.slices for each in found])
        return output

    def _get_mm_fields_config(
        self, hf_inputs: BatchFeature, hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        fields = super()._get_mm_fields_config(hf_inputs, hf_processor_mm_kwargs)
        here = MultiModalFieldConfig.batched("image", keep_on_cpu=True)
        return {**fields, SLICES: here, "tgt_sizes": here}


class PrunedMiniCPMV4_6Processor(SlicedProcessor, MiniCPMV4_6MultiModalProcessor):
    """`MiniCPMV4_6MultiModalProcessor` with fewer placeholders; see `SlicedProcessor`."""


class SlicedModel(PrunedModel):
    """A `PrunedModel` of a MiniCPM-V.

    Own change: what is parsed of images keeps the slices of each image together.
    """

    def _parse_and_validate_image_input(self, **kwargs: object) -> Any:
        return kwargs if "pixel_values" in kwargs else None


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedMiniCPMV4_6Processor, info=PrunedMiniCPMV4_6Info, dummy_inputs=MiniCPMVDummyInputsBuilder
)
class PrunedMiniCPMV4_6(SlicedModel, MiniCPMV4_6ForConditionalGeneration):
    """vLLM's MiniCPM-V 4.6 with visual-token pruning; see `SlicedModel`."""

    family = MINICPMV4_6
