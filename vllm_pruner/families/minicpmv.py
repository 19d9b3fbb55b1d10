"""MiniCPM-V with a resampler: `MiniCPMV`, versions 2.6, 4.0 and 4.5.

Follows `vllm/model_executor/models/minicpmv.py` of vLLM 0.32. An image is the whole picture and
possibly slices of it, each with marks around (`<image>`, `<slice>`) and its number in front. A
token is one of 64 learned queries, which the resampler has look at the patches of a slice
(`minicpm_queries`, `resampler_tower`). Marks and line breaks behind rows of slices all stay, and
each slice has a fixed share of the budget; `crop_budget` "joint" acts as "per_crop" here. Positions
are plain.

**What is compared**: a query has no place of its own, but what it shows follows from its attention
to the patches. So importance is the attention that patches receive in the tower's last layer,
carried to the queries by that; features are the rows that the resampler returns. A method that
needs a grid is refused.

`<unk>` stands for a token in the prompt, and `(<image>./</image>)`, which is several tokens, for an
image before that. Videos are pictures one after the other. They are left whole.

vLLM has a class for each version, which that of the architecture only chooses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from vllm.model_executor.models.minicpmv import (
    MiniCPMV,
    MiniCPMV2_6,
    MiniCPMV4_0,
    MiniCPMV4_5,
    MiniCPMVDummyInputsBuilder,
    MiniCPMVMultiModalProcessor,
    MiniCPMVProcessingInfo,
    get_version_by_config,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.parse import ImageSize

from vllm_pruner.families.merging import MERGING
from vllm_pruner.families.minicpm_queries import (
    images,
    largest,
    layout,
    seen,
    size_with_most,
)
from vllm_pruner.families.minicpmv4_6 import SlicedModel
from vllm_pruner.families.unsuited import check_one_grid
from vllm_pruner.family import Family
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.worker.replayed_model import ReplayedModel
from vllm_pruner.worker.resampler_tower import ResamplerTower

if TYPE_CHECKING:
    from vllm.config import VllmConfig

__all__ = ["MINICPMV", "PrunedMiniCPMV"]

MINICPMV = Family(
    "minicpmv",
    largest,
    layout,
    images,
    ResamplerTower,
    seen,
    partial(check_one_grid, image="learned queries, which have no places"),
    stock_captured=True,
    **MERGING | {"merger": False},  # patches are mixed, and none belongs to a token
)


class PrunedMiniCPMVInfo(PrunedInfo, MiniCPMVProcessingInfo):
    """`MiniCPMVProcessingInfo` with settings; see `PrunedInfo` for the changes.

    Own changes: vLLM's dummy images have most slices, also where the server says how many these
    are; what stands for an image in a message is one token to those who look for its text.
    """

    family = MINICPMV

    def get_image_size_with_most_features(self) -> ImageSize:
        """Return the size of the `largest` layout."""
        height, width = size_with_most(self)
        return ImageSize(width=width, height=height)

    @property
    def image_token(self) -> int:
        return int(self.get_tokenizer().get_vocab()["<unk>"])

    def normalisation(self) -> tuple[Sequence[float], Sequence[float]]:
        processor = self.get_image_processor()
        if hasattr(processor, "image_mean"):  # as transformers 5 calls them
            return processor.image_mean, processor.image_std
        return processor.mean, processor.std

    def signed(self, prompt: list[int]) -> list[int]:
        tokenizer = self.get_tokenizer()
        text, sign = tokenizer.decode(prompt), tokenizer.decode([self.image_token])
        for pattern, written in ((self.image_pattern, sign), (self.video_pattern, "")):
            there = tokenizer.decode(tokenizer.encode(pattern, add_special_tokens=False))
            text = text.replace(there, written)  # some tokenizers add spaces
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
        return ids


class PrunedMiniCPMVProcessor(PrunedProcessor, MiniCPMVMultiModalProcessor):
    """`MiniCPMVMultiModalProcessor` with fewer placeholders; see `PrunedProcessor`."""


class ResampledModel(SlicedModel):
    """A `PrunedModel` of a MiniCPM-V with a resampler, which calls its decoder otherwise."""

    family = MINICPMV

    @property
    def decoder(self) -> Any:
        return self.llm


class PrunedMiniCPMV2_6(ResampledModel, ReplayedModel, MiniCPMV2_6):
    """vLLM's MiniCPM-V 2.6; see `ReplayedModel`."""


class PrunedMiniCPMV4_0(ResampledModel, ReplayedModel, MiniCPMV4_0):
    """vLLM's MiniCPM-V 4.0; see `ReplayedModel`."""


class PrunedMiniCPMV4_5(ResampledModel, MiniCPMV4_5):
    """vLLM's MiniCPM-V 4.5, of which vLLM has no CUDA graphs."""


_BY_VERSION: Mapping[tuple[int, ...], Any] = {
    (2, 6): PrunedMiniCPMV2_6,
    (4, 0): PrunedMiniCPMV4_0,
    (4, 5): PrunedMiniCPMV4_5,
}


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedMiniCPMVProcessor, info=PrunedMiniCPMVInfo, dummy_inputs=MiniCPMVDummyInputsBuilder
)
class PrunedMiniCPMV(MiniCPMV):
    """vLLM's MiniCPM-V with visual-token pruning.

    Own change: `__new__` chooses among our classes; others of vLLM's were refused at start.
    """

    family = MINICPMV

    def __new__(cls, *, vllm_config: VllmConfig, prefix: str = "") -> Any:
        kind = _BY_VERSION[get_version_by_config(vllm_config.model_config.hf_config)]
        # As vLLM: quantisation asks the class of the architecture.
        cls.packed_modules_mapping.update(kind.packed_modules_mapping)
        cls.embedding_modules.update(kind.embedding_modules)
        return kind(vllm_config=vllm_config, prefix=prefix)
