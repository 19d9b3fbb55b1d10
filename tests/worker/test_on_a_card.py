"""Every family on a GPU that is not there: the rows of a CPU to the bit, no tensor of the host
among those of the card, and no wait."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from contract import BLOCKS, CHECKPOINTS, ENCODED, LARGE, NARROWED
from model_on_card import embedded, model_on_card
from nightly import NIGHTLY
from pretend_tensor import OnCard, host
from pruned_model import picture_items, pruned_model
from tower_kernels import run_tower_kernels_on_a_cpu

from vllm_pruner import methods

pytestmark = pytest.mark.slow

run_tower_kernels_on_a_cpu()

SIZES = [(168, 224), (168, 224), (140, 112), (84, 280)]
"""Height and width of a batch's pictures: two of one size, and others."""

_MODELS = "vllm.model_executor.models"

_MINICPM = {
    f"{_MODELS}.minicpmv4_6:MiniCPMV4_6ForConditionalGeneration.get_vision_hidden_states",
    f"{_MODELS}.minicpmv4_6:MiniCPMV4_6ViTWindowAttentionMerger.forward",
}
_RADIO = {f"{_MODELS}.radio:RadioInternVisionModel._inter_image_mask_metadata_from_seq_lens"}
STOCK = {
    "demo-deepseek-ocr": {
        f"{_MODELS}.deepseek_ocr:DeepseekOCRForCausalLM._encode_local_features",
        f"{_MODELS}.deepseek_ocr:DeepseekOCRForCausalLM._pixel_values_to_embedding",
    },
    "demo-dots-ocr": {
        f"{_MODELS}.dots_ocr:DotsVisionTransformer.forward",
        f"{_MODELS}.dots_ocr:DotsVisionTransformer.rot_pos_emb",
    },
    "demo-qwen2.5": {f"{_MODELS}.qwen2_5_vl:Qwen2_5_VisionTransformer.prepare_encoder_metadata"},
    "demo-gemma4": {f"{_MODELS}.gemma4_mm:Gemma4ForConditionalGeneration._process_image_input"},
    "demo-idefics3": {f"{_MODELS}.idefics3:Idefics3Model.image_pixels_to_features"},
    "demo-kimi": {f"{_MODELS}.moonvit:MoonVitEncoder.forward"},
    "demo-lfm2": {
        f"{_MODELS}.lfm2_vl:Lfm2VLForConditionalGeneration.image_pixels_to_features",
        f"{_MODELS}.lfm2_vl:Lfm2VLMultiModalProjector.forward",
    },
    "demo-minicpm4.6": _MINICPM,
    "demo-minicpm4.7": _MINICPM,
    "demo-molmo2": {
        f"{_MODELS}.molmo2:Molmo2VisionBackbone.forward",
        f"{_MODELS}.molmo2:Molmo2ForConditionalGeneration._process_image_input",
    },
    "demo-lightonocr": {f"{_MODELS}.pixtral:PixtralHFVisionModel.forward"},
    "demo-mistral3": {f"{_MODELS}.pixtral:PixtralHFVisionModel.forward"},
    "demo-nemotron": _RADIO,
    "demo-nemotron-omni": _RADIO,
    "demo-pixtral": {f"{_MODELS}.pixtral:VisionTransformer.forward"},
    "demo-smolvlm": {f"{_MODELS}.idefics3:Idefics3Model.image_pixels_to_features"},
}
"""Functions of vLLM's in which the host waits, by checkpoint. Those of Qwen2.5-VL, Mistral's and
RADIO send what they have not pinned; where nothing is pruned so do those of dots.ocr, LightOnOCR,
Kimi and LFM2-VL, DeepSeek-OCR's asks whether there are crops, MiniCPM-V's what is padding, and
Idefics3's drops tiles, Gemma 4's tokens of padding by a mask."""

SIBLINGS = (
    *("demo-keye", "demo-kimi-k2.5", "demo-pixtral", "demo-minicpmv2.6", "demo-nemotron"),
    *(*ENCODED, *BLOCKS, *LARGE, *NARROWED),
)
"""Checkpoints that do on a card what another one does, for the night: as Kimi-VL, Mistral3,
MiniCPM-V 4.5, Nemotron Omni, whose bfloat16 takes a CPU minutes, and, without a decoder, GLM-V; and
those whose pictures are large."""

EVERY_METHOD = ("demo", "demo-next", "demo-qwen2.5", "demo-qwen3")
"""Checkpoints with every method; the others with those that look at most."""

SOME_METHODS = ("scope", "hiprune", "visionzip")


def _cases(checkpoint: str, model: Any) -> dict[str, list[dict[str, Any]]]:
    """The settings of each picture of a batch, by the name of the batch."""
    names = methods.built_in() if checkpoint in EVERY_METHOD else SOME_METHODS
    served = [name for name in names if model.family.serves(model.config, methods.get(name))]
    # Nothing of noise is plain, so the floor of `pixels` would keep all.
    alike = {name: [{"method": name, "floor": "off"}] * len(SIZES) for name in served}
    mixed = [{}, {"rate": 0.0}, {"tokens": 20}, {"method": "random"}]
    return {**alike, "mixed": mixed, "off": [{"rate": 0.0}] * len(SIZES)}


PARAMS = [
    pytest.param(each, marks=NIGHTLY if each in SIBLINGS else ())
    for each in [*CHECKPOINTS, "demo-minicpmv2.6", *ENCODED, *BLOCKS, *NARROWED]
]


@pytest.fixture(scope="module", params=PARAMS)
def made(request: pytest.FixtureRequest) -> Iterator[tuple[Any, dict[str, Any]]]:
    """A card with a model, and by batch its items and the rows of a CPU, new and known."""
    flags: dict[str, Any] = {"dtype": "float32", "max_num_batched_tokens": 9216}
    flags["mm_encoder_only"] = request.param in (*ENCODED, *BLOCKS)
    if request.param.startswith(("demo-kimi", "demo-nemotron")):
        flags["dtype"] = "bfloat16"  # their decoders have no other
    # What vLLM compiles in this tower it would not on the card, and it rounds otherwise.
    moon3d = ("demo-kimi-k2.5", "demo-kimi-k3")
    stance: Any = "force_eager" if request.param in moon3d else "default"
    with (
        torch.compiler.set_stance(stance),
        pruned_model(request.param, {}, trust_remote_code=True, **flags) as (config, model),
    ):
        model.requires_grad_(False)  # torch multiplies otherwise by what may want a gradient
        batches = {}
        for name, settings in _cases(request.param, model).items():
            items = [
                item
                for place, (size, each) in enumerate(zip(SIZES, settings, strict=True))
                for item in picture_items(config, [size], (len(batches), place), each)
            ]
            batches[name] = items, *(embedded(model, items, device=None) for _ in range(2))
        with model_on_card(config, model, STOCK.get(request.param, ())) as card:
            model._warm_up._is_cold = False  # see test_graphs_on_a_card
            yield card, model, batches


def test_rows_are_those_of_a_cpu_and_nothing_waits(made: Any) -> None:
    card, model, batches = made
    for name, (items, *expected) in batches.items():
        for rows, state in zip(expected, ("new", "known"), strict=True):
            found = embedded(model, items)
            assert not card.waits, (name, state)
            for one, other in zip(found, rows, strict=True):
                assert isinstance(one, OnCard)
                assert torch.equal(host(one), other), (name, state)
    assert not card.unused
