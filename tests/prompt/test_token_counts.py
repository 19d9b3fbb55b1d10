"""A request's own arguments for the processor, where images are counted before it has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image
from pruning_processor import pruning_processor
from vllm.exceptions import VLLMValidationError

pytestmark = pytest.mark.server

PROMPT = "<|vision_start|><|image_pad|><|vision_end|>What?"


def _process(processor: Any, kwargs: dict[str, Any]) -> Any:
    picture = Image.fromarray(np.zeros((300, 400, 3), np.uint8))
    items = processor.info.parse_mm_data({"image": picture})
    return processor(PROMPT, items, hf_processor_mm_kwargs=kwargs)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"max_pixels": 0},
        {"max_pixels": "many"},
        {"images_kwargs": {"max_pixels": 0}},
        {"size": 5},
        {"patch_size": 7},  # more tokens than the tower has patches for
    ],
    ids=str,
)
def test_arguments_that_count_no_images_are_a_400_that_names_them(kwargs: dict[str, Any]) -> None:
    said = r"^mm_processor_kwargs is \{'.*cannot be counted \(.+\); allowed: arguments that"
    with pytest.raises(VLLMValidationError, match=said) as error:
        _process(pruning_processor("demo-qwen2.5"), kwargs)
    assert error.value.parameter == "mm_processor_kwargs"


def test_what_fails_without_arguments_is_a_fault_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = pruning_processor("demo-qwen2.5")

    def fails(*_: Any) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(type(processor.info), "image_tokens", fails)
    with pytest.raises(ZeroDivisionError):
        _process(processor, {})
