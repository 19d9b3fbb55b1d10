"""Gemma 4: `Gemma4ForConditionalGeneration`.

Follows `vllm/model_executor/models/gemma4_mm.py` of vLLM 0.32. An image of any shape is one grid of
tokens, each the mean of 3 x 3 patches; see `gemma4_grid` and `pooled_tower`. Positions are plain.
In the decoders that look both ways within an image, vLLM finds it by its placeholders, which are
those of the kept tokens. Other decoders look tokens up once more for each layer: `embed_input_ids`
takes token 0 for every placeholder, so no row's depend on what is kept. Videos are left whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from vllm.model_executor.models.gemma4_mm import (
    Gemma4DummyInputsBuilder,
    Gemma4ForConditionalGeneration,
    Gemma4MultiModalProcessor,
    Gemma4ProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.parse import ImageSize

from vllm_pruner.families.gemma4_grid import (
    GRIDS,
    edge,
    grids_of,
    images,
    largest,
    layout,
    seen,
)
from vllm_pruner.families.merging import MERGING
from vllm_pruner.families.unsuited import check_shrinking
from vllm_pruner.family import Family
from vllm_pruner.prompt.dummy_images import largest_images
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.worker.pooled_tower import PooledTower
from vllm_pruner.worker.replayed_model import ReplayedModel

if TYPE_CHECKING:
    import torch
    from transformers import BatchFeature
    from vllm.config.multimodal import MultiModalDummyOptions
    from vllm.inputs import MultiModalDataDict
    from vllm.multimodal.parse import MultiModalDataItems

    from vllm_pruner.plan import ImagePlan
    from vllm_pruner.tower import EncoderImage

__all__ = ["GEMMA4", "PrunedGemma4"]

_PLACES = "pixel_position_ids"
"""vLLM's field with the place of each patch."""

GEMMA4 = Family(
    "gemma4",
    largest,
    layout,
    images,
    PooledTower,
    seen,
    partial(check_shrinking, smaller="max_soft_tokens"),
    stock_captured=True,
    **MERGING,
)


class PrunedGemma4Info(PrunedInfo, Gemma4ProcessingInfo):
    """`Gemma4ProcessingInfo` with settings; see `PrunedInfo` for the changes."""

    family = GEMMA4

    def get_image_size_with_most_features(self) -> ImageSize:
        """Return the size of the `largest` layout."""
        hf_config: Any = self.ctx.get_hf_config()
        most, side = largest(self), edge(hf_config.vision_config)
        return ImageSize(width=most.columns * side, height=most.rows * side)


class PrunedGemma4DummyInputs(Gemma4DummyInputsBuilder):
    """`Gemma4DummyInputsBuilder` with images of most tokens: vLLM's square has fewer."""

    info: PrunedGemma4Info

    def get_dummy_mm_data(
        self,
        seq_len: int,
        mm_counts: Mapping[str, int],
        mm_options: MultiModalDummyOptions | None = None,
    ) -> MultiModalDataDict:
        stock = super().get_dummy_mm_data(seq_len, mm_counts, mm_options)
        return {**stock, "image": largest_images(self, mm_counts, mm_options)}


class PrunedGemma4Processor(PrunedProcessor, Gemma4MultiModalProcessor):
    """`Gemma4MultiModalProcessor` with fewer placeholders; see `PrunedProcessor`.

    Own change: an image's grid is a field.
    """

    def _apply_hf_processor_main(
        self, mm_items: MultiModalDataItems, hf_kwargs: Mapping[str, object]
    ) -> BatchFeature:
        output = super()._apply_hf_processor_main(mm_items, hf_kwargs)
        if _PLACES in output:
            side = self.info.get_hf_config().vision_config.pooling_kernel_size
            output[GRIDS] = grids_of(output[_PLACES], side)
        return output

    def _get_mm_fields_config(
        self, hf_inputs: BatchFeature, hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        fields = super()._get_mm_fields_config(hf_inputs, hf_processor_mm_kwargs)
        return {**fields, GRIDS: MultiModalFieldConfig.batched("image", keep_on_cpu=True)}


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedGemma4Processor, info=PrunedGemma4Info, dummy_inputs=PrunedGemma4DummyInputs
)
class PrunedGemma4(ReplayedModel, Gemma4ForConditionalGeneration):
    """vLLM's Gemma 4, keeping the visual tokens that matter; see `ReplayedModel`.

    Own changes:
    - what is parsed of images has their grids too;
    - an unpruned image beside pruned ones has its own rows only. vLLM's graphs return one for every
      token that the processor pads an image to, of which a runner reads the first.
    """

    family = GEMMA4

    def embed_images(
        self,
        images: Sequence[EncoderImage],
        plans: Sequence[ImagePlan],
        fields: Mapping[str, Any],
    ) -> list[torch.Tensor]:
        embeddings = super().embed_images(images, plans, fields)
        return [rows[: image.layout.tokens] for image, rows in zip(images, embeddings, strict=True)]

    def _parse_and_validate_image_input(self, **kwargs: object) -> Any:
        parsed = super()._parse_and_validate_image_input(**kwargs)
        if parsed is not None:  # vLLM's own graphs pick their fields from a batch: no grids
            setattr(parsed, GRIDS, kwargs.get(GRIDS))
        return parsed
