"""MiniMax-M3: `MiniMaxM3SparseForConditionalGeneration`.

Follows `vllm/models/minimax_m3` of vLLM 0.32, whichever class it has for the platform. An image of
any resolution is one grid of tokens, each 2 x 2 patches; see `minimax_m3_grid` and `minimax_tower`.
Positions are plain, and the time of a video's frame stands before its tokens.
"""

from __future__ import annotations

from vllm.models.minimax_m3 import MiniMaxM3SparseForConditionalGeneration
from vllm.models.minimax_m3.common.mm_preprocess import (
    MiniMaxM3VLDummyInputsBuilder,
    MiniMaxM3VLMultiModalProcessor,
    MiniMaxM3VLProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.parse import ImageSize

from vllm_pruner.families.minimax_m3_grid import largest_size, minimax_family
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.worker.replayed_model import ReplayedModel

__all__ = ["MINIMAX_M3", "PrunedMiniMaxM3"]

MINIMAX_M3 = minimax_family("minimax_m3")


class PrunedMiniMaxM3Info(PrunedInfo, MiniMaxM3VLProcessingInfo):
    """`MiniMaxM3VLProcessingInfo` with settings; see `PrunedInfo` for the changes."""

    family = MINIMAX_M3
    mark_words = (
        MiniMaxM3VLProcessingInfo.VISION_START_TOKEN,
        MiniMaxM3VLProcessingInfo.VISION_END_TOKEN,
    )

    @property
    def image_token(self) -> int:
        return int(self.get_tokenizer().get_vocab()[self.IMAGE_TOKEN])

    @property
    def video_token(self) -> int | None:
        return int(self.get_tokenizer().get_vocab()[self.VIDEO_TOKEN])

    def get_image_size_with_most_features(self) -> ImageSize:
        """Return the size of vLLM's dummy images, which has the `largest` layout."""
        height, width = largest_size(self)
        return ImageSize(width=width, height=height)


class PrunedMiniMaxM3Processor(PrunedProcessor, MiniMaxM3VLMultiModalProcessor):
    """`MiniMaxM3VLMultiModalProcessor` with fewer placeholders; see `PrunedProcessor`."""


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedMiniMaxM3Processor, info=PrunedMiniMaxM3Info, dummy_inputs=MiniMaxM3VLDummyInputsBuilder
)
class PrunedMiniMaxM3(ReplayedModel, MiniMaxM3SparseForConditionalGeneration):
    """vLLM's MiniMax-M3, keeping the visual tokens that matter; see `ReplayedModel`."""

    family = MINIMAX_M3
