"""Qwen4-Exp: `Qwen4ExpForConditionalGeneration`, Qwen3-VL's tower and processor before a decoder of
experts that looks up n-grams.

Follows `vllm/models/qwen4_exp` of vLLM 0.32, which has a class for NVIDIA's GPUs and one for AMD's
under one name. Beside the rows the decoder gets the ids of a prompt's tokens, and adds embeddings
of n-grams of them in some layers (PLE). They are those of the shorter prompt, so each token of it
has to have its own id: text of a video that travels as placeholders would be looked up as these.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vllm.model_executor.models.qwen3_vl import Qwen3VLDummyInputsBuilder, Qwen3VLProcessingInfo
from vllm.models.qwen4_exp import Qwen4ExpForConditionalGeneration
from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_pruner import methods
from vllm_pruner.families.qwen3_vl import PrunedQwen3VLProcessor
from vllm_pruner.families.qwen_grid import QWEN3_VIDEOS, qwen_family
from vllm_pruner.families.unsuited import check_shrinking
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.settings.errors import SettingError
from vllm_pruner.worker.captured_model import CapturedModel
from vllm_pruner.worker.mrope import MRopeModel

if TYPE_CHECKING:
    from vllm_pruner.methods.base import Method

__all__ = ["QWEN4_EXP", "PrunedQwen4Exp"]


def check_method(hf_config: Any, method: Method) -> None:
    """Refuse what Qwen-VL refuses, and methods that join the frames of a video; see
    `Family.check_method`.

    Raises:
        SettingError: one of both.
    """
    check_shrinking(hf_config, method)
    if hf_config.text_config.ple_layer_ids and methods.compares_frames(method.name):
        why = (
            ", which has the times of a video's frames embedded among its tokens, but this model "
            "looks up n-grams of a prompt's text"
        )
        raise SettingError("method", repr(method.name), "a method for images", why)


QWEN4_EXP = replace(qwen_family("qwen4_exp", QWEN3_VIDEOS), check_method=check_method)


class PrunedQwen4ExpInfo(PrunedInfo, Qwen3VLProcessingInfo):
    """`Qwen3VLProcessingInfo` with settings; see `PrunedInfo` for the changes.

    Own change: the configuration may be of any class. vLLM's `Qwen4ExpProcessingInfo`, of which
    there is one for each kind of GPU, asks for the one class that it is of.
    """

    family = QWEN4_EXP

    def get_hf_config(self) -> Any:
        return self.ctx.get_hf_config()


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedQwen3VLProcessor, info=PrunedQwen4ExpInfo, dummy_inputs=Qwen3VLDummyInputsBuilder
)
class PrunedQwen4Exp(MRopeModel, CapturedModel, Qwen4ExpForConditionalGeneration):
    """vLLM's Qwen4-Exp with visual-token pruning; see `MRopeModel` and `CapturedModel`."""

    family = QWEN4_EXP
