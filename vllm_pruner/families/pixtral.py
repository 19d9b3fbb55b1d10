"""Pixtral: `PixtralForConditionalGeneration`, as Mistral itself publishes its models with vision
(Mistral Small 3.1 and 3.2, Magistral Small, Pixtral-12B), in `params.json` and `tekken.json`.

Follows `vllm/model_executor/models/pixtral.py` of vLLM 0.32. Tokens lie as in the transformers form
(`mistral3`): `row_breaks` says what becomes of the breaks between rows. Pixtral-12B has no merger:
a token is one patch.

Mistral's tokenizer writes all tokens of an image into the prompt, where vLLM's processor only looks
for them; `prompt.folded_prompt` says what is done here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any

from mistral_common.tokens.tokenizers import image as of_mistral
from vllm.model_executor.models.pixtral import (
    PixtralDummyInputsBuilder,
    PixtralForConditionalGeneration,
    PixtralMultiModalProcessor,
    PixtralProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.transformers_utils.processors.pixtral import MistralCommonImageProcessor

from vllm_pruner.families.merging import MERGING
from vllm_pruner.families.row_breaks import RowsWithBreaks, cut, separators
from vllm_pruner.families.unsuited import check_shrinking
from vllm_pruner.family import Family
from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.prompt.folded_prompt import FoldedPrompt
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.tower import EncoderImage
from vllm_pruner.worker.pixtral_tower import MistralTower

if TYPE_CHECKING:
    import torch
    from vllm.config import VllmConfig

__all__ = ["PIXTRAL", "PrunedPixtral"]


def largest(info: Any) -> GridLayout:
    """Return the layout with which vLLM profiles memory; see `Family.largest`."""
    size = info.get_image_size_with_most_features()
    return layout(info, size.height, size.width, {})


def layout(info: Any, height: int, width: int, mm_kwargs: Mapping[str, object]) -> GridLayout:
    """Return the layout of an image after the processor has resized it; see `Family.layout`."""
    return _grid(info.get_image_processor().mm_encoder, height, width)


@lru_cache(maxsize=1024)
def _grid(encoder: Any, height: int, width: int) -> GridLayout:
    """Return the layout of an image, for which Mistral's encoder wants an image of that size."""
    processor = MistralCommonImageProcessor(encoder)
    _, rows, columns = processor.get_number_of_image_patches(height, width)
    return GridLayout(rows, columns)


def merges(hf_config: Any) -> bool:
    """Return whether a token is several patches; see `Family.merger`."""
    return getattr(hf_config.vision_config, "mm_projector_id", "") == "patch_merge"


def images(hf_config: Any, image_input: Any) -> list[EncoderImage]:
    """Return the images of a batch; see `Family.images`."""
    vision = hf_config.vision_config
    edge = vision.patch_size * (vision.spatial_merge_size if merges(hf_config) else 1)
    return [
        EncoderImage(pixels, GridLayout(pixels.shape[-2] // edge, pixels.shape[-1] // edge))
        for pixels in image_input["images"]
    ]


def seen(hf_config: Any, item: Mapping[str, Any]) -> torch.Tensor:
    """Return an image as one crop; see `Family.seen`."""
    pixels: torch.Tensor = item["images"]
    return pixels.flatten(0, -4) if pixels.ndim > 3 else pixels.unsqueeze(0)


PIXTRAL = Family(
    "pixtral",
    largest,
    layout,
    images,
    MistralTower,
    seen,
    partial(check_shrinking, smaller="max_image_size", place="tekken.json"),
    cut,
    separators=separators,
    **{**MERGING, "merger": merges},
)


class PrunedPixtralInfo(PrunedInfo, PixtralProcessingInfo):
    """`PixtralProcessingInfo` with settings; see `PrunedInfo` for the changes."""

    family = PIXTRAL
    around_message = ("[INST]", "[/INST]")

    @cached_property
    def special_ids(self) -> of_mistral.SpecialImageIDs:
        """The ids of [IMG], [IMG_BREAK] and [IMG_END]."""
        ids: of_mistral.SpecialImageIDs = self.get_image_processor().mm_encoder.special_ids
        return ids

    @property
    def image_token(self) -> int:
        return self.special_ids.img

    @property
    def image_sign(self) -> int:
        """[IMG_END], of which each image has one."""
        return self.special_ids.img_end

    @property
    def marks(self) -> frozenset[int]:
        return frozenset((self.image_token, self.special_ids.img_break, self.image_sign))

    def normalisation(self) -> tuple[Sequence[float], Sequence[float]]:
        return of_mistral.DATASET_MEAN, of_mistral.DATASET_STD


class PrunedPixtralProcessor(FoldedPrompt, PrunedProcessor, PixtralMultiModalProcessor):
    """`PixtralMultiModalProcessor` with fewer placeholders; see `PrunedProcessor`."""


_DUMMIES: Any = PixtralDummyInputsBuilder
"""To the checker it is for vLLM's own info alone."""


@MULTIMODAL_REGISTRY.register_processor(
    PrunedPixtralProcessor, info=PrunedPixtralInfo, dummy_inputs=_DUMMIES
)
class PrunedPixtral(RowsWithBreaks, PixtralForConditionalGeneration):
    """vLLM's Pixtral with visual-token pruning; see `RowsWithBreaks`."""

    family = PIXTRAL

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        info: Any = MULTIMODAL_REGISTRY.get_processing_info(vllm_config.model_config)
        self.line_break = info.special_ids.img_break
