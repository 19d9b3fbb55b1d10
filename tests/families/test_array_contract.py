"""A model gets the same of a JPEG that was decoded into an array as of Pillow's image of it."""

from __future__ import annotations

import io
import uuid
from typing import Any

import numpy as np
import pytest
import torch
from contract import processed
from PIL import Image, JpegImagePlugin
from pruning_processor import pruning_processor
from vllm.multimodal.media import image as media
from vllm.multimodal.media.image import ImageMediaIO

from vllm_pruner.decoded_pixels import pixels_of
from vllm_pruner.prompt import turbo
from vllm_pruner.settings.keys import PLAN_IMAGE

pytestmark = pytest.mark.skipif(
    not hasattr(media, "open_image"), reason="vLLM 0.31 decodes by Pillow alone"
)

PILLOWS = {
    "InternVLChatModel",
    *("KimiVLForConditionalGeneration", "KimiK25ForConditionalGeneration"),
    "KimiK3ForConditionalGeneration",
    *("SkyworkR1VChatModel", "QianfanOCRForConditionalGeneration"),
    "PixtralForConditionalGeneration",
    *("MiniCPMV", "MiniCPMV4_6ForConditionalGeneration", "MiniCPMV4_7ForConditionalGeneration"),
    *("NemotronH_Nano_VL_V2", "NemotronH_Nano_Omni_Reasoning_V3"),
    *("Ernie4_5_VLMoeForConditionalGeneration", "DeepseekV4ForConditionalGeneration"),
    *("KeyeForConditionalGeneration", "KeyeVL1_5ForConditionalGeneration"),
    *("Molmo2ForConditionalGeneration", "DeepseekOCRForCausalLM"),
    "StepVLForConditionalGeneration",
}
"""Models whose processors work on Pillow's images."""

SIZES = [(448, 336), (300, 600), (64, 64)]


@pytest.fixture(autouse=True)
def off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turbo, "_ON", [])


def jpeg(width: int, height: int) -> bytes:
    """A file that is new to vLLM's reader, which knows those of other tests."""
    values = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "JPEG", comment=uuid.uuid4().bytes)
    return file.getvalue()


def asked(processor: Any, *files: bytes, decoded: bool) -> Any:
    """What the engine gets of files that are read and parsed as in a server."""
    loaded = [ImageMediaIO().load_bytes(data) for data in files]
    assert {pixels_of(each.media) is not None for each in loaded} == {decoded}
    return processed(processor, {}, "image", loaded)


def test_every_model_gets_the_same_of_arrays(
    processor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (architecture,) = processor.info.ctx.get_hf_config().architectures
    expected = asked(processor, *(jpeg(*size) for size in SIZES), decoded=False)
    vars(processor).pop("_takes_arrays", None)
    assert processor._takes_arrays == (architecture not in PILLOWS)
    if architecture in PILLOWS:
        assert not turbo._ON
        return

    def load(image: Any) -> Any:
        raise AssertionError("Pillow decoded a file that has been decoded")

    files = [jpeg(*size) for size in SIZES]
    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "load", load)
    found = asked(processor, *files, decoded=True)
    assert found["prompt_token_ids"] == expected["prompt_token_ids"]
    for one, other in zip(expected["mm_kwargs"]["image"], found["mm_kwargs"]["image"], strict=True):
        assert one.keys() == other.keys()
        for name in one.keys() - {PLAN_IMAGE}:  # the file's hash
            assert torch.equal(torch.as_tensor(one[name].data), torch.as_tensor(other[name].data))


def test_the_operator_can_leave_jpegs_to_pillow() -> None:
    settings = {"rate": 0.5, "byte_pixels": False}
    asked(pruning_processor("demo", settings=settings), jpeg(448, 336), decoded=False)
    assert not turbo._ON
