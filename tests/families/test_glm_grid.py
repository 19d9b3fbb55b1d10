"""Sizes of GLM-V's images as the processor is told them, by operator or request."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image
from pruning_processor import pruning_processor

from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.settings.keys import REPORT

pytestmark = pytest.mark.server

TOKEN = 28 * 28 * 2
"""Pixels, of two frames."""


def _size(tokens: int) -> dict[str, int]:
    return {"shortest_edge": 4 * TOKEN, "longest_edge": tokens * TOKEN}


def _processor(**kwargs: Any) -> Any:
    return pruning_processor("demo-glm4v", kwargs=kwargs)


def _tokens(processor: Any, height: int, width: int, **kwargs: Any) -> tuple[int, int]:
    """Visual tokens of an image, and how many of them are kept."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    items = processor.info.parse_mm_data({"image": [Image.fromarray(pixels)]})
    prompt = "<|begin_of_image|><|image|><|end_of_image|>What?"
    output = processor(prompt, items, hf_processor_mm_kwargs=kwargs)
    (place,) = output["mm_placeholders"]["image"]
    return output[REPORT]["original"], place.length


@pytest.mark.parametrize("kwargs", [{"size": _size(50)}, {"images_kwargs": {"size": _size(50)}}])
def test_an_oblong_has_more_tokens_than_the_largest_square(kwargs: dict[str, Any]) -> None:
    processor = _processor(**kwargs)
    assert processor.info.family.largest(processor.info) == GridLayout(5, 10)
    assert processor.info.get_max_image_tokens() == 50
    most = processor.info.get_image_size_with_most_features()
    assert (most.height, most.width) == (140, 280)
    assert _tokens(processor, most.height, most.width) == (50, 25)


@pytest.mark.parametrize("name", ["size", "images_kwargs"])
def test_a_request_has_a_size_of_its_own(name: str) -> None:
    size = _size(20)
    kwargs = {name: size if name == "size" else {"size": size}}
    original, kept = _tokens(_processor(), 400, 300, **kwargs)
    assert original == 15 == 5 * 3
    assert kept == 8


@pytest.mark.parametrize("size", [{"longest_edge": 50 * TOKEN}, {"height": 28, "width": 28}, 28])
def test_half_a_size_is_refused(size: Any) -> None:
    with pytest.raises(ConfigError, match=r"^size is .*; allowed: shortest_edge and longest_edge"):
        _tokens(_processor(), 400, 300, size=size)
