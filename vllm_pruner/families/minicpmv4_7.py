"""MiniCPM-V 4.7: `MiniCPMV4_7ForConditionalGeneration`.

Follows `vllm/model_executor/models/minicpmv4_7.py` of vLLM 0.32: all of 4.6 (`minicpmv4_6`), with
positions of three dimensions on a canvas of slices (`canvas`). What starts and ends a slice in a
prompt tells where it lies there, so other tokens of that kind are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vllm.model_executor.models.minicpmv import MiniCPMVDummyInputsBuilder
from vllm.model_executor.models.minicpmv4_7 import (
    MiniCPMV4_7ForConditionalGeneration,
    MiniCPMV4_7MultiModalProcessor,
    MiniCPMV4_7ProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_pruner.families.minicpm_slices import item_layout
from vllm_pruner.families.minicpmv4_6 import MINICPMV4_6, SlicedInfo, SlicedModel, SlicedProcessor
from vllm_pruner.prompt.places import check_marks
from vllm_pruner.worker.canvas import CanvasModel

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.inputs import MultiModalInput

    from vllm_pruner.prompt.asked import Asked

__all__ = ["MINICPMV4_7", "PrunedMiniCPMV4_7"]

MINICPMV4_7 = replace(MINICPMV4_6, name="minicpmv4_7", item_layout=item_layout)


def has_canvas(hf_config: Any) -> bool:
    """Return whether a checkpoint asks for positions on a canvas, by vLLM's rule."""
    mode = str(getattr(hf_config, "mrope_mode", "")).lower()
    return bool(getattr(hf_config, "uses_mrope_canvas", False)) or "canvas" in mode


class PrunedMiniCPMV4_7Info(SlicedInfo, MiniCPMV4_7ProcessingInfo):
    """`MiniCPMV4_7ProcessingInfo` with settings; see `PrunedInfo` for the changes."""

    family = MINICPMV4_7
    slice_words = ("<image>", "<slice>", "</image>", "</slice>")
    """What stands before the whole picture and before each slice, and behind them."""

    @property
    def most_slices(self) -> int:
        return int(self.get_image_max_slice_num())

    @property
    def slice_marks(self) -> Mapping[int, str]:
        """The text of each token around a slice, by id."""
        words = self.get_tokenizer().get_vocab()
        return {words[text]: text for text in self.slice_words}


class PrunedMiniCPMV4_7Processor(SlicedProcessor, MiniCPMV4_7MultiModalProcessor):
    """`MiniCPMV4_7MultiModalProcessor` with fewer placeholders; see `SlicedProcessor`."""

    def _check_prompt(self, asked: Sequence[Asked], output: MultiModalInput) -> None:
        super()._check_prompt(asked, output)
        check_marks(output, self.info.slice_marks, ["image", "video"])


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedMiniCPMV4_7Processor, info=PrunedMiniCPMV4_7Info, dummy_inputs=MiniCPMVDummyInputsBuilder
)
class PrunedMiniCPMV4_7(CanvasModel, SlicedModel, MiniCPMV4_7ForConditionalGeneration):
    """vLLM's MiniCPM-V 4.7 with visual-token pruning; see `CanvasModel` and `SlicedModel`."""

    family = MINICPMV4_7

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        if has_canvas(self.config):
            info: Any = MULTIMODAL_REGISTRY.get_processing_info(vllm_config.model_config)
            self.starts = tuple(info.slice_marks)[:2]
