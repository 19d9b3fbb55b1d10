"""Kimi-K2.5's images are images, though vLLM calls them chunks, as it does parts of videos."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from contract import batched, processed
from offline_pictures import offline_pictures
from PIL import Image
from pruned_model import stock_processor
from pruning_processor import pruning_processor
from vllm.exceptions import VLLMValidationError

from vllm_pruner.settings.errors import ConfigError

NAME = "demo-kimi-k2.5"
_NOISE = np.random.default_rng(0)
PICTURES = [
    Image.fromarray(_NOISE.integers(0, 256, (*size, 3), np.uint8))
    for size in ((224, 336), (420, 125), (1, 1), (900, 1300))
]


@pytest.fixture(scope="module")
def processor() -> Any:
    return pruning_processor(NAME)


def test_at_rate_0_prompt_and_pixels_are_stock_vllms(processor: Any) -> None:
    """Which is given chunks."""
    ours = processed(processor, {"rate": 0.0}, "image", PICTURES)
    stock = stock_processor(NAME)
    assert stock.info.get_hf_config().use_unified_vision_chunk, "as published"
    data = offline_pictures(stock.info.get_hf_config(), PICTURES)
    ((_, chunks),) = data.items()
    content = [*[{"type": "image"}] * len(chunks), {"type": "text", "text": "What?"}]
    prompt = stock.info.get_tokenizer().apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    theirs = stock(prompt, stock.info.parse_mm_data(data))
    assert ours["prompt_token_ids"] == theirs["prompt_token_ids"]
    assert ours["mm_placeholders"]["image"] == theirs["mm_placeholders"]["vision_chunk"]
    fields = batched(theirs["mm_kwargs"]["vision_chunk"])
    assert set(fields) == {"pixel_values", "grid_thws"}
    found = batched(ours["mm_kwargs"]["image"])
    for name, expected in fields.items():
        assert torch.equal(found[name], expected)


def test_vllms_front_end_is_told_of_no_chunks(processor: Any) -> None:
    assert not processor.info.ctx.model_config.hf_config.use_unified_vision_chunk
    assert [*processor.info.allowed_mm_limits] == ["image"]


@pytest.mark.parametrize("name", ["image", "vision_chunk"])
def test_images_are_limited_by_either_name(name: str) -> None:
    made = pruning_processor(NAME, limit_mm_per_prompt={name: 2})
    assert made.info.allowed_mm_limits == {"image": 2}


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"vision_chunk": [{"type": "image", "image": PICTURES[0]}]}, "has 'vision_chunk'"),
        (
            {"vision_chunk": {"type": "video_chunk", "video_chunk": PICTURES[:1]}},
            "has 'vision_chunk'",
        ),
        ({"image": torch.zeros(1, 4, 128)}, "image_embeds is given"),
    ],
    ids=["chunk of an image", "chunk of a video", "embeddings"],
)
def test_what_is_no_image_is_refused_in_a_sentence(
    processor: Any, data: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(VLLMValidationError, match=f"{sentence}.*; allowed: "):
        processor.info.parse_mm_data(data)


def test_a_video_is_one_too_many(processor: Any) -> None:
    clip = np.zeros((4, 28, 28, 3), np.uint8)
    with pytest.raises((ValueError, VLLMValidationError), match=r"At most 0 video\(s\)"):
        processor.info.parse_mm_data({"video": [clip]})


def test_another_projector_or_count_stops_the_start(
    processor: Any, rewritten: tuple[Any, dict[str, Any]]
) -> None:
    vision, config = rewritten
    config["fixed_output_tokens"] = 64
    with pytest.raises(ConfigError, match="^fixed_output_tokens is 64; allowed: null"):
        processor.info.family.largest(processor.info)
    vision.mm_projector_type = "patchmergerv2"
    with pytest.raises(ConfigError, match="^mm_projector_type is 'patchmergerv2'; allowed: "):
        processor.info.family.largest(processor.info)
