"""Sizes of GLM-5-Next's images as the processor is told them, by operator or request."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from contract import NEWER
from PIL import Image
from pruning_processor import pruning_processor
from transformers import Glm4vImageProcessor

from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.settings.keys import REPORT

NAME = "demo-glm5"

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(NAME in NEWER, reason="another vLLM, 0.31, does not serve it"),
]


def _tokens(processor: Any, height: int, width: int, **kwargs: Any) -> tuple[int, int]:
    """Visual tokens of an image, and how many of them are kept."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    items = processor.info.parse_mm_data({"image": [Image.fromarray(pixels)]})
    prompt = "<|begin_of_image|><|image|><|end_of_image|>What?"
    output = processor(prompt, items, hf_processor_mm_kwargs=kwargs)
    (place,) = output["mm_placeholders"]["image"]
    return output[REPORT]["original"], place.length


@pytest.mark.parametrize(
    "kwargs", [{"max_image_tokens": 54}, {"images_kwargs": {"max_image_tokens": 54}}], ids=str
)
def test_the_operator_bounds_tokens(kwargs: dict[str, Any]) -> None:
    processor = pruning_processor(NAME, kwargs=kwargs)
    assert processor.info.family.largest(processor.info) == GridLayout(6, 9)
    most = processor.info.get_image_size_with_most_features()
    assert (most.height, most.width) == (168, 252)
    assert _tokens(processor, most.height, most.width) == (54, 27)
    for size in ((900, 700), (90, 1000), (1, 1)):
        assert 4 <= _tokens(processor, *size)[0] <= 54


def test_a_bound_without_divisors_is_one_row() -> None:
    processor = pruning_processor(NAME, kwargs={"max_image_tokens": 53})
    assert processor.info.family.largest(processor.info) == GridLayout(1, 53)
    assert _tokens(processor, 28, 28 * 53)[0] == 53
    assert _tokens(processor, 400, 300)[0] < 53


@pytest.mark.parametrize("name", ["top", "images_kwargs"])
def test_a_request_has_bounds_of_its_own(name: str) -> None:
    processor = pruning_processor(NAME)
    for bounds, tokens in (
        ({"max_image_tokens": 20}, 4 * 5),
        ({"min_image_tokens": 200}, 13 * 17),
        ({"min_image_tokens": 100, "max_image_tokens": 120}, 9 * 12),
    ):
        kwargs = bounds if name == "top" else {name: bounds}
        shape = processor.info.family.layout(processor.info, 210, 280, kwargs)
        assert _tokens(processor, 210, 280, **kwargs)[0] == shape.tokens
        assert shape.tokens == tokens


def test_images_are_padded_to_squares_of_tokens_where_the_processor_says_so() -> None:
    processor = pruning_processor(NAME, kwargs={"patch_expand_factor": 2})
    assert processor.info.family.largest(processor.info) == GridLayout(32, 32)
    assert _tokens(processor, 57, 112)[0] == 4 * 4 == 16


@pytest.mark.parametrize("number", [0, -1, 2.5])
def test_a_bound_that_is_no_number_of_tokens_is_refused(number: Any) -> None:
    with pytest.raises(ConfigError, match=r"^max_image_tokens is .*; allowed: a whole number from"):
        _tokens(pruning_processor(NAME), 400, 300, max_image_tokens=number)


def test_another_processor_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as vLLM 0.31's own."""
    info = pruning_processor(NAME).info
    monkeypatch.setattr(info, "get_image_processor", lambda **_: Glm4vImageProcessor())
    said = "^image processor is Glm4vImageProcessor of transformers.*; allowed: Glm5NextImagePro"
    with pytest.raises(ConfigError, match=said):
        info.family.largest(info)
