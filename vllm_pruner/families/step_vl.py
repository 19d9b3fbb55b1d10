"""Step3-VL-10B: `StepVLForConditionalGeneration`.

Follows `vllm/model_executor/models/step_vl.py` of vLLM 0.32. An image is square windows and the
whole picture behind them, or the whole picture alone; see `step_windows` and `step_tower`. The
prompt, which is built before the tower runs, has marks around each of these (`<patch_start>`,
`<im_start>`) and `<patch_newline>` behind a row of windows. Positions are plain, so these alone
tell what a token is of: all stay, and each has a fixed share of the budget; `crop_budget` "joint"
acts as "per_crop" here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

import torch
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from vllm.model_executor.models.step3_vl import (
    Step3VLDummyInputsBuilder,
    Step3VLMultiModalProcessor,
    Step3VLProcessingInfo,
)
from vllm.model_executor.models.step_vl import StepVLForConditionalGeneration
from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_pruner.families.merging import MERGING
from vllm_pruner.families.step_windows import images, largest, layout, seen
from vllm_pruner.families.unsuited import check_one_grid
from vllm_pruner.family import Family
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.worker.model import PrunedModel
from vllm_pruner.worker.step_tower import Halving, StepTower

__all__ = ["STEP_VL", "PrunedStepProcessor", "PrunedStepVL", "StepInfo"]


def tower(model: Any) -> StepTower:
    """Return the tower of a model; see `Family.tower`."""
    vision = model.config.vision_config

    def project(rows: torch.Tensor) -> torch.Tensor:
        projected: torch.Tensor = model.vit_large_projector(rows)[0]
        return projected

    return StepTower(
        model.vision_model,
        model.vision_model,
        project,
        layers="transformer.resblocks",
        attention="attn.attn",
        norm="ln_post",
        heads=vision.heads,
        width=4 * vision.width,
        halvings=[Halving(3, 1), Halving(3, 1)],
        has_class_token=vision.use_cls_token,
    )


STEP_VL = Family(
    "step_vl",
    largest,
    layout,
    images,
    tower,
    seen,
    partial(check_one_grid, image="windows and the whole picture"),
    **MERGING,
)


class StepInfo(PrunedInfo, Step3VLProcessingInfo):
    """`Step3VLProcessingInfo` with settings; see `PrunedInfo` for the changes."""

    family = STEP_VL
    mark_words = ("<im_start>", "<im_end>", "<patch_start>", "<patch_end>", "<patch_newline>")

    @cached_property
    def own_processor(self) -> Any:
        """The image processor of a request that has no arguments for it."""
        return self.get_image_processor()  # type: ignore[no-untyped-call]

    @cached_property
    def most_windows(self) -> int:
        """The windows of a picture in the `largest` layout."""
        return self.family.largest(self).crops - 1

    @property
    def image_token(self) -> int:
        return int(self.get_hf_processor().image_token_id)

    def normalisation(self) -> tuple[Sequence[float], Sequence[float]]:
        return OPENAI_CLIP_MEAN, OPENAI_CLIP_STD


class PrunedStepProcessor(PrunedProcessor, Step3VLMultiModalProcessor):
    """`Step3VLMultiModalProcessor` with fewer placeholders; see `PrunedProcessor`."""


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedStepProcessor, info=StepInfo, dummy_inputs=Step3VLDummyInputsBuilder
)
class PrunedStepVL(PrunedModel, StepVLForConditionalGeneration):
    """vLLM's Step3-VL-10B with visual-token pruning; see `PrunedModel`."""

    family = STEP_VL
