"""NVIDIA's Nemotron Nano VL and Nemotron Omni: `NemotronH_Nano_VL_V2` and what vLLM serves by the
same class.

Follows `vllm/model_executor/models/nano_nemotron_vl.py` of vLLM 0.32. `nemotron_pictures` says what
an image is, `radio_tower` how it is seen. One run of placeholders stands between the marks of an
image, and the decoder, of Mamba and attention without rotary positions, has no order but that of
its tokens: a kept one stands behind the one kept before it.

Videos are left whole, or vLLM prunes them, whose model writes the words between their frames among
the rows itself. Audio is vLLM's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from vllm.model_executor.models.nano_nemotron_vl import (
    NanoNemotronVLDummyInputsBuilder,
    NanoNemotronVLMultiModalProcessor,
    NanoNemotronVLProcessingInfo,
    NemotronH_Nano_VL_V2,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.parse import ImageSize
from vllm.transformers_utils.processors.nano_nemotron_vl import (
    AUDIO_CONTEXT,
    AUDIO_END,
    AUDIO_START,
    IMG_CONTEXT,
    IMG_END,
    IMG_START,
)

from vllm_pruner.families.merging import MERGING
from vllm_pruner.families.nemotron_pictures import (
    PICTURES,
    OwnSizes,
    check_method,
    images,
    largest,
    largest_size,
    layout,
    seen,
    sizes_of,
)
from vllm_pruner.family import Family
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.worker.model import PrunedModel
from vllm_pruner.worker.radio_tower import RadioTower

__all__ = ["NEMOTRON_VL", "PrunedNemotronVL"]

NEMOTRON_VL = Family(
    "nemotron_vl",
    largest,
    layout,
    images,
    RadioTower,
    seen,
    check_method,
    left_in_tree=True,
    **MERGING,
)


class PrunedNemotronVLInfo(PrunedInfo, NanoNemotronVLProcessingInfo):
    """`NanoNemotronVLProcessingInfo` with settings; see `PrunedInfo` for the changes.

    Own change: a picture of any shape has the size that it has alone, also in vLLM's profile.
    """

    family = NEMOTRON_VL
    mark_words = (IMG_START, IMG_END, "<video>", AUDIO_START, AUDIO_CONTEXT, AUDIO_END)

    @cached_property
    def sizes(self) -> OwnSizes | None:
        """How pictures of any shape are sized; None if pictures are tiles."""
        return OwnSizes.of(self.get_hf_config(), self.ctx.model_config.max_model_len)

    @property
    def image_token(self) -> int:
        return int(self.get_tokenizer().convert_tokens_to_ids(IMG_CONTEXT))

    def get_hf_processor(self, **kwargs: object) -> Any:
        processor = super().get_hf_processor(**kwargs)
        processor.dynamic_tiler = self.sizes
        return processor

    def normalisation(self) -> tuple[Sequence[float], Sequence[float]]:
        hf_config = self.get_hf_config()
        return hf_config.norm_mean, hf_config.norm_std

    def get_image_size_with_most_features(self, max_num_tiles: int | None = None) -> ImageSize:
        """Return the size of the `largest` layout."""
        return largest_size(self)

    def get_dummy_image_size_and_max_tokens(
        self, mm_counts: Mapping[str, int]
    ) -> tuple[tuple[int, int], int]:
        size = largest_size(self)
        return (size.width, size.height), self.get_max_image_tokens()


class PrunedNemotronVLProcessor(PrunedProcessor, NanoNemotronVLMultiModalProcessor):
    """`NanoNemotronVLMultiModalProcessor` with fewer placeholders; see `PrunedProcessor`."""


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedNemotronVLProcessor,
    info=PrunedNemotronVLInfo,
    dummy_inputs=NanoNemotronVLDummyInputsBuilder,
)
class PrunedNemotronVL(PrunedModel, NemotronH_Nano_VL_V2):
    """vLLM's Nemotron Nano VL, keeping the visual tokens that matter; see `PrunedModel`.

    Own changes:
    - what is parsed of images has their pixels too, before vLLM cuts them into patches;
    - sizes of pictures are read off these: of a picture to be explained nothing else is there.
    """

    family = NEMOTRON_VL

    def _parse_and_validate_image_input(self, **kwargs: object) -> Any:
        pictures: Any = kwargs.get("pixel_values_flat")
        sizes = sizes_of(self.config, pictures)
        parsed = super()._parse_and_validate_image_input(**{**kwargs, **sizes})
        if parsed is not None:
            setattr(parsed, PICTURES, pictures)
        return parsed
