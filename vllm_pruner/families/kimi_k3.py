"""Kimi-K3: `KimiK3ForConditionalGeneration`.

Follows `vllm/models/kimi_k3` of vLLM 0.32, whichever class it has for the platform. An image of any
resolution is one grid of tokens, as Kimi-K2.5's; see `kimi_k25_grid` and `moon_tower`. Positions
are plain. In a prompt, an image is the text `<|kimi_image_placeholder|>`, several tokens, in whose
place vLLM puts the image's size in pixels as text, then one run of placeholders between marks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vllm.models.kimi_k3 import KimiK3ForConditionalGeneration
from vllm.models.kimi_k3.common.mm_preprocess import (
    KimiK3DummyInputsBuilder,
    KimiK3MultiModalProcessor,
    KimiK3ProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.parse import ImageSize
from vllm.transformers_utils.processors.kimi_k25_vision_fused import KimiK25FusedVisionProcessor

from vllm_pruner.families import kimi_k25_grid
from vllm_pruner.families.merging import MERGING
from vllm_pruner.families.unsuited import check_shrinking, check_text
from vllm_pruner.family import Family
from vllm_pruner.prompt.dummy_images import largest_images
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.worker.moon_tower import NormedMoonTower3d
from vllm_pruner.worker.replayed_model import ReplayedModel

if TYPE_CHECKING:
    from vllm.config.multimodal import MultiModalDummyOptions
    from vllm.inputs import MultiModalDataDict

    from vllm_pruner.layout.grid_layout import GridLayout
    from vllm_pruner.methods.base import Method

__all__ = ["KIMI_K3", "PrunedKimiK3"]


def largest(info: Any) -> GridLayout:
    """Return the layout that vLLM profiles memory with; see `Family.largest`.

    Raises:
        ConfigError: the checkpoint's projector or processor is none that vtprune knows.
    """
    images = info.image_processor
    if not isinstance(images, KimiK25FusedVisionProcessor):
        raise ConfigError(
            f"image processor is {type(images).__name__}; allowed: KimiK25FusedVisionProcessor, "
            "which vLLM 0.32 and newer take"
        )
    return kimi_k25_grid.largest(info, projector="patchmergerv2")


def check_method(hf_config: Any, method: Method) -> None:
    """Refuse methods that shrink the image or read text; see `Family.check_method`."""
    place = "preprocessor_config.json"
    check_shrinking(hf_config, method, smaller="in_patch_limit", place=place)
    check_text(hf_config, method, "methods that read no text, such as vispruner")


KIMI_K3 = Family(
    "kimi_k3",
    largest,
    kimi_k25_grid.layout,
    kimi_k25_grid.images,
    NormedMoonTower3d,
    kimi_k25_grid.seen,
    check_method,
    # vLLM's class for AMD's GPUs has no graphs.
    stock_captured=hasattr(KimiK3ForConditionalGeneration, "encoder_cudagraph_forward"),
    **MERGING,
)


class PrunedKimiK3Info(PrunedInfo, KimiK3ProcessingInfo):
    """`KimiK3ProcessingInfo` with settings; see `PrunedInfo` for the changes."""

    family = KIMI_K3
    mark_words = ("<|media_begin|>", "<|media_content|>", "<|media_end|>")

    @property
    def image_token(self) -> int:
        return int(self.media_token_id)

    def normalisation(self) -> tuple[Sequence[float], Sequence[float]]:
        config = self.image_processor.media_proc_cfg
        return config["image_mean"], config["image_std"]

    def get_image_size_with_most_features(self) -> ImageSize:
        """Return the size of the `largest` layout."""
        height, width = kimi_k25_grid.largest_size(self)
        return ImageSize(width=width, height=height)


class PrunedKimiK3DummyInputs(KimiK3DummyInputsBuilder):
    """`KimiK3DummyInputsBuilder` with images of the `largest` layout, by its own rule."""

    info: PrunedKimiK3Info

    def get_dummy_mm_data(
        self,
        seq_len: int,
        mm_counts: Mapping[str, int],
        mm_options: MultiModalDummyOptions | None = None,
    ) -> MultiModalDataDict:
        return {"image": largest_images(self, mm_counts, mm_options)}


class PrunedKimiK3Processor(PrunedProcessor, KimiK3MultiModalProcessor):
    """`KimiK3MultiModalProcessor` with fewer placeholders; see `PrunedProcessor`."""


class _Stock(KimiK3ForConditionalGeneration):
    """vLLM's class, whose images have the name that those of other models have."""

    def _parse_and_validate_image_input(self, **kwargs: object) -> Any:
        return self._parse_and_validate_media_input(**kwargs)


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedKimiK3Processor, info=PrunedKimiK3Info, dummy_inputs=PrunedKimiK3DummyInputs
)
class PrunedKimiK3(ReplayedModel, _Stock):
    """vLLM's Kimi-K3, keeping the visual tokens that matter; see `ReplayedModel`."""

    family = KIMI_K3
