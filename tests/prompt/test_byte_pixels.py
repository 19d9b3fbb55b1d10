"""Pixels as bytes: the device makes of them what HF's image processor does, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pruning_processor import pruning_processor

from vllm_pruner.byte_normalizer import ByteNormalizer
from vllm_pruner.prompt.byte_pixels import is_plain
from vllm_pruner.settings.keys import BYTES

CHECKPOINTS = ["demo", "demo-siglip", "demo-next"]
SIZES = [(448, 336), (336, 448), (336, 336), (37, 501), (501, 37), (1, 1), (5, 300), (1501, 1000)]
CPU = torch.device("cpu")
IMAGE, WORD = 4, 7


@cache
def processor(checkpoint: str, dtype: str, byte_pixels: bool) -> Any:
    settings = {"rate": 0.5, "byte_pixels": byte_pixels}
    return pruning_processor(checkpoint, settings=settings, dtype=dtype)


def picture(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(values)


def fields(it: Any, *pictures: Any, **mm_kwargs: Any) -> list[dict[str, Any]]:
    """What the engine gets of each image."""
    items = it.info.parse_mm_data({"image": list(pictures)})
    output = it([IMAGE, WORD] * len(pictures), items, hf_processor_mm_kwargs=mm_kwargs)
    images = output["mm_kwargs"]["image"]
    return [{name: elem.data for name, elem in each.items()} for each in images]


def normalizer(it: Any) -> ByteNormalizer:
    dtype = it.info.ctx.model_config.dtype
    return ByteNormalizer(it.info.get_hf_processor().image_processor, dtype, CPU)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_every_size_gives_the_tower_the_same_bits(checkpoint: str, dtype: str) -> None:
    as_bytes, as_floats = (processor(checkpoint, dtype, on) for on in (True, False))
    normalize = normalizer(as_bytes)
    for size in SIZES:
        (sent,), (whole,) = fields(as_bytes, picture(*size)), fields(as_floats, picture(*size))
        assert sent[BYTES].dtype == torch.uint8
        expected = whole["pixel_values"]
        assert torch.equal(normalize(sent[BYTES]), expected), size
        assert sent.keys() - {BYTES} == whole.keys() - {"pixel_values"}


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_every_value_of_every_channel_is_normalised_as_hf_does(checkpoint: str) -> None:
    image_processor = processor(checkpoint, "float32", True).info.get_hf_processor().image_processor
    values = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    expected = image_processor.rescale_and_normalize(
        values,
        True,
        image_processor.rescale_factor,
        True,
        tuple(image_processor.image_mean),
        tuple(image_processor.image_std),
    )
    found = ByteNormalizer(image_processor, torch.float32, CPU)(values.movedim(1, 3))
    assert torch.equal(found, expected)
    assert found.unique().numel() >= 256


def test_what_clip_and_siglip_do_is_done_here_and_crops_are_left_to_hf() -> None:
    found = {
        name: is_plain(processor(name, "float32", True).info.get_hf_processor().image_processor)
        for name in CHECKPOINTS
    }
    assert found == {"demo": True, "demo-siglip": True, "demo-next": False}


@pytest.mark.parametrize(
    "asked",
    [
        lambda it: fields(it, picture(448, 336), do_normalize=False),
        lambda it: fields(it, np.asarray(picture(448, 336))),
    ],
    ids=["arguments-for-hf", "no-picture-of-pillow"],
)
def test_what_is_not_plain_goes_vllms_own_way(asked: Callable[[Any], Any]) -> None:
    (found,), (expected,) = (asked(processor("demo", "float32", on)) for on in (True, False))
    assert BYTES not in found
    assert torch.equal(found["pixel_values"], expected["pixel_values"])


def test_crops_of_several_images_are_filled_up_by_hf_and_one_crop_needs_no_filling() -> None:
    two = picture(336, 336), picture(37, 501)
    for checkpoint, field in (("demo-next", "pixel_values"), ("demo", BYTES)):
        for found in fields(processor(checkpoint, "float32", True), *two):
            assert field in found


def test_a_processor_that_makes_other_pixels_is_not_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    it = processor("demo", "bfloat16", True)
    monkeypatch.delitem(vars(it), "_gives_equal_bits", raising=False)
    monkeypatch.setattr(ByteNormalizer, "__call__", lambda *_: torch.zeros(1))
    (found,) = fields(it, picture(448, 336))
    assert "pixel_values" in found
    monkeypatch.delitem(vars(it), "_gives_equal_bits")
