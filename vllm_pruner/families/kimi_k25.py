"""Kimi-K2.5 and K2.6: `KimiK25ForConditionalGeneration`.

Follows `vllm/model_executor/models/kimi_k25.py` of vLLM 0.32. An image of any resolution is one
grid of tokens, each 2 x 2 patches; see `kimi_k25_grid` and `moon_tower`. Positions are plain, and
one run of placeholders stands between the marks of an image.

vLLM calls images and parts of videos `vision_chunk`, one modality whose items are dictionaries. Its
front end then loses clients' names for images, and hands videos on in a form that its own processor
refuses. Here images are images, as of every other model, to all but vLLM's own processor of this
one; videos are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from vllm.model_executor.models.kimi_k25 import (
    KimiK25DummyInputsBuilder,
    KimiK25ForConditionalGeneration,
    KimiK25MultiModalProcessor,
    KimiK25ProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.parse import (
    ImageProcessorItems,
    ImageSize,
    MultiModalDataItems,
    MultiModalDataParser,
    VisionChunkProcessorItems,
)

from vllm_pruner.families.kimi_k25_grid import images, largest, largest_size, layout, seen
from vllm_pruner.families.merging import MERGING
from vllm_pruner.families.unsuited import check_shrinking
from vllm_pruner.family import Family
from vllm_pruner.prompt.dummy_images import largest_images
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.prompt.refusal import refusal
from vllm_pruner.worker.moon_tower import MoonTower3d
from vllm_pruner.worker.replayed_model import ReplayedModel

if TYPE_CHECKING:
    from transformers import BatchFeature
    from vllm.config.multimodal import MultiModalDummyOptions
    from vllm.inputs import MultiModalDataDict
    from vllm.multimodal.inputs import MultiModalFieldConfig, MultiModalKwargsItems
    from vllm.multimodal.processing import PromptUpdate
    from vllm.v1.worker.encoder_cudagraph_defs import EncoderCudaGraphConfig

__all__ = ["KIMI_K25", "PrunedKimiK25"]

_IMAGE, _CHUNK = "image", "vision_chunk"

KIMI_K25 = Family(
    "kimi_k25",
    largest,
    layout,
    images,
    MoonTower3d,
    seen,
    partial(check_shrinking, smaller="in_patch_limit", place="preprocessor_config.json"),
    stock_captured=True,
    **MERGING,
)


class _ImageParser(MultiModalDataParser):
    """Parses images as of other models, and refuses embeddings and chunks."""

    def _get_subparsers(self) -> Mapping[str, Callable[[Any], Any]]:
        stock = super()._get_subparsers()
        return {**stock, _IMAGE: self._pictures, _CHUNK: self._chunks}

    def _pictures(self, data: Any) -> Any:
        if self.is_embeddings(data):
            raise refusal("image_embeds is given, which Kimi-K2.5 does not take; allowed: images")
        return self._parse_image_data(data)

    def _chunks(self, data: Any) -> Any:
        raise refusal(
            "multi_modal_data has 'vision_chunk', vLLM's name for images and parts of videos of "
            "this model; allowed: 'image' with the images, and no videos, which vtprune cannot "
            "prune here",
            parameter="multi_modal_data",
        )


class PrunedKimiK25Info(PrunedInfo, KimiK25ProcessingInfo):
    """`KimiK25ProcessingInfo` with settings; see `PrunedInfo` for the changes.

    Own changes: images are images, and chunks are unknown, as vLLM's front end reads in the model's
    configuration. `--limit-mm-per-prompt` counts them by either name.
    """

    family = KIMI_K25
    mark_words = ("<|media_begin|>", "<|media_content|>", "<|media_end|>")

    def __init__(self, ctx: Any) -> None:
        super().__init__(ctx)
        self.hf_config.use_unified_vision_chunk = False

    @property
    def image_token(self) -> int:
        return int(self.media_token_id)

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        return {_IMAGE: self.ctx.get_mm_config().get_limit_per_prompt(_CHUNK)}

    def get_data_parser(self) -> MultiModalDataParser:
        return _ImageParser()

    def normalisation(self) -> tuple[Sequence[float], Sequence[float]]:
        config = self.image_processor.media_proc_cfg
        return config["image_mean"], config["image_std"]

    def get_image_size_with_most_features(self) -> ImageSize:
        """Return the size of the `largest` layout."""
        height, width = largest_size(self)
        return ImageSize(width=width, height=height)


class PrunedKimiK25DummyInputs(KimiK25DummyInputsBuilder):
    """`KimiK25DummyInputsBuilder` with images of most tokens, and no part of a video."""

    info: PrunedKimiK25Info

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        text: str = self.info.media_token * mm_counts.get(_IMAGE, 0)
        return text

    def get_dummy_mm_data(
        self, seq_len: int, mm_counts: Mapping[str, int], mm_options: MultiModalDummyOptions
    ) -> MultiModalDataDict:
        return {_IMAGE: largest_images(self, mm_counts, mm_options)}


class PrunedKimiK25Processor(PrunedProcessor, KimiK25MultiModalProcessor):
    """`KimiK25MultiModalProcessor` with fewer placeholders; see `PrunedProcessor`.

    Own change: it is asked for chunks of one image each, and what it says of chunks is of images.
    """

    def _get_hf_mm_inputs(
        self, mm_items: MultiModalDataItems, hf_kwargs: Mapping[str, object]
    ) -> Any:
        return super()._get_hf_mm_inputs(_as_chunks(mm_items), hf_kwargs)

    def _get_mm_fields_config(
        self, hf_inputs: BatchFeature, hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        fields = super()._get_mm_fields_config(hf_inputs, hf_processor_mm_kwargs)
        return {name: replace(field, modality=_IMAGE) for name, field in fields.items()}

    def _get_prompt_updates(
        self,
        mm_items: MultiModalDataItems,
        hf_processor_mm_kwargs: Mapping[str, Any],
        out_mm_kwargs: MultiModalKwargsItems,
    ) -> Sequence[PromptUpdate]:
        chunks = _as_chunks(mm_items)
        updates = super()._get_prompt_updates(chunks, hf_processor_mm_kwargs, out_mm_kwargs)
        return [replace(update, modality=_IMAGE) for update in updates]


def _as_chunks(mm_items: MultiModalDataItems) -> MultiModalDataItems:
    """Return images as vLLM's processor of this model takes them."""
    pictures = mm_items.get_items(_IMAGE, ImageProcessorItems) if _IMAGE in mm_items else ()
    chunks = [{"type": "image", "image": picture, "uuid": None} for picture in pictures]
    return MultiModalDataItems({_CHUNK: VisionChunkProcessorItems(chunks)} if chunks else {})


class _Stock(KimiK25ForConditionalGeneration):
    """vLLM's class, to which images are images."""

    def _parse_and_validate_image_input(self, **kwargs: object) -> Any:
        return self._parse_and_validate_media_input(**kwargs)

    def get_encoder_cudagraph_config(self) -> EncoderCudaGraphConfig:
        return replace(super().get_encoder_cudagraph_config(), modalities=[_IMAGE])


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedKimiK25Processor, info=PrunedKimiK25Info, dummy_inputs=PrunedKimiK25DummyInputs
)
class PrunedKimiK25(ReplayedModel, _Stock):
    """vLLM's Kimi-K2.5, keeping the visual tokens that matter; see `ReplayedModel`."""

    family = KIMI_K25
