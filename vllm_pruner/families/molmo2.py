"""Molmo2: `Molmo2ForConditionalGeneration`.

Follows `vllm/model_executor/models/molmo2.py` of vLLM 0.32. An image is a grid of tokens of the
whole picture and a finer one of its crops (`molmo2_grids`), in one run with marks before and behind
each grid and, as the processor is set, behind each row. Positions are plain, so the marks alone
tell where a token is: all stay, outside of the budget, and the model puts their embeddings among
the kept rows; see `own_marks`.

In the decoder all rows of an image see each other, marks included: vLLM finds them by the
placeholders. Videos are left whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from vllm.model_executor.models.molmo2 import (
    IMAGE_PROMPT,
    Molmo2DummyInputsBuilder,
    Molmo2ForConditionalGeneration,
    Molmo2MultiModalProcessor,
    Molmo2ProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.parse import ImageProcessorItems
from vtprune_kernels import gather_rows

from vllm_pruner.families.merging import MERGING
from vllm_pruner.families.molmo2_grids import GRIDS, POOLING, grids, images, largest, layout, seen
from vllm_pruner.families.own_marks import MarkedProcessor, cut
from vllm_pruner.families.unsuited import check_one_grid
from vllm_pruner.family import Family
from vllm_pruner.layout.layout import Layout
from vllm_pruner.layout.two_grids import TwoGrids
from vllm_pruner.methods.on_device import on_device
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.worker.model import PrunedModel
from vllm_pruner.worker.pooling_tower import PoolingTower

if TYPE_CHECKING:
    from transformers import BatchFeature
    from vllm.config import VllmConfig
    from vllm.multimodal.parse import MultiModalDataItems

    from vllm_pruner.worker.batches import Group

__all__ = ["MOLMO2", "PrunedMolmo2"]


def separators(layout: Layout) -> int:
    """Return the number of an image's marks; see `Family.separators`."""
    assert isinstance(layout, TwoGrids)
    return len(layout.marks())


MOLMO2 = Family(
    "molmo2",
    largest,
    layout,
    images,
    PoolingTower,
    seen,
    partial(check_one_grid, image="two grids with marks between"),
    cut,
    separators=separators,
    own_marks=True,
    image_token="image_patch_id",
    marks=("low_res_image_start_token_id", "image_start_token_id", "image_end_token_id"),
    **MERGING,
)


class PrunedMolmo2Info(PrunedInfo, Molmo2ProcessingInfo):
    """`Molmo2ProcessingInfo` with settings; see `PrunedInfo` for the changes."""

    family = MOLMO2

    @property
    def image_sign(self) -> int:
        return int(self.get_tokenizer().get_vocab()[IMAGE_PROMPT])


class PrunedMolmo2Processor(MarkedProcessor, Molmo2MultiModalProcessor):
    """`Molmo2MultiModalProcessor` with fewer placeholders; see `MarkedProcessor`.

    Own change: an image's grids are a field.
    """

    def _apply_hf_processor_main(
        self, mm_items: MultiModalDataItems, hf_kwargs: Mapping[str, object]
    ) -> BatchFeature:
        output = super()._apply_hf_processor_main(mm_items, hf_kwargs)
        if "image_num_crops" in output:
            items = mm_items.get_items("image", ImageProcessorItems)
            sizes = [items.get_image_size(place) for place in range(len(items))]
            output[GRIDS] = torch.tensor([grids(self.info, size, hf_kwargs) for size in sizes])
        return output

    def _get_mm_fields_config(
        self, hf_inputs: BatchFeature, hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        fields = super()._get_mm_fields_config(hf_inputs, hf_processor_mm_kwargs)
        return {**fields, GRIDS: MultiModalFieldConfig.batched("image", keep_on_cpu=True)}

    def shows(self, item: Mapping[str, Any], full: Sequence[int]) -> torch.Tensor:
        are_tokens: torch.Tensor = torch.tensor(full) == self.info.image_token
        return are_tokens


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedMolmo2Processor, info=PrunedMolmo2Info, dummy_inputs=Molmo2DummyInputsBuilder
)
class PrunedMolmo2(PrunedModel, Molmo2ForConditionalGeneration):
    """vLLM's Molmo2 with visual-token pruning; see `PrunedModel`.

    Own changes:
    - the rows of an image that has a plan include its marks;
    - what is parsed of images has `GRIDS` and `POOLING` too.
    """

    family = MOLMO2

    whole_start: int
    """The id of the mark before the whole picture's grid."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        info: Any = MULTIMODAL_REGISTRY.get_processing_info(vllm_config.model_config)
        low, plain = self.config.low_res_image_start_token_id, self.config.image_start_token_id
        self.whole_start = low if info.get_hf_processor().use_single_crop_start_token else plain

    @property
    def decoder(self) -> Any:
        return self.model

    def placed(self, rows: torch.Tensor, index: torch.Tensor, group: Group) -> torch.Tensor:
        """Return the rows with all marks of both grids."""
        layout, config = group.layout, self.config
        assert isinstance(layout, TwoGrids)
        ids = (
            *(self.whole_start, config.image_start_token_id),
            *(config.image_col_id, config.image_end_token_id),
        )
        marks = self.embed_plain(on_device([ids[kind] for kind in layout.marks()], index.device))
        order = layout.order_with_marks(index)
        return gather_rows([torch.cat([rows, marks.expand(len(rows), -1, -1)], dim=1)], order)[0]

    def _parse_and_validate_image_input(self, **kwargs: object) -> Any:
        parsed = super()._parse_and_validate_image_input(**kwargs)
        if parsed is not None:
            setattr(parsed, GRIDS, kwargs.get(GRIDS))
            setattr(parsed, POOLING, kwargs.get(POOLING))
        return parsed
