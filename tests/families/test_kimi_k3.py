"""What is Kimi-K3's own: an image's size stands in the prompt as text, and its placeholder is text;
`test_relatives` has its rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from contract import NEWER, batched, processed
from PIL import Image
from pruned_model import stock_processor
from pruning_processor import pruning_processor

from vllm_pruner import methods
from vllm_pruner.settings.errors import ConfigError

NAME = "demo-kimi-k3"

pytestmark = pytest.mark.skipif(NAME in NEWER, reason="another vLLM, 0.31, does not serve it")

_NOISE = np.random.default_rng(0)
SIZES = [(224, 336), (420, 125), (1, 1), (900, 1300)]
PICTURES = [Image.fromarray(_NOISE.integers(0, 256, (*size, 3), np.uint8)) for size in SIZES]
PICTURES.append(PICTURES[0].convert("RGBA"))
"""The last one as vLLM's front end of this model leaves a picture with an alpha channel."""


@pytest.fixture(scope="module")
def processor() -> Any:
    return pruning_processor(NAME)


def test_at_rate_0_prompt_and_pixels_are_stock_vllms(processor: Any) -> None:
    """Also of pictures without a word between, whose placeholders share tokens."""
    ours = processed(processor, {"rate": 0.0}, "image", PICTURES)
    stock = stock_processor(NAME)
    content = [*[{"type": "image"}] * len(PICTURES), {"type": "text", "text": "What?"}]
    prompt = stock.info.get_tokenizer().apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    theirs = stock(prompt, stock.info.parse_mm_data({"image": PICTURES}))
    assert ours["prompt_token_ids"] == theirs["prompt_token_ids"]
    assert ours["mm_placeholders"] == theirs["mm_placeholders"]
    found, expected = (batched(each["mm_kwargs"]["image"]) for each in (ours, theirs))
    assert set(expected) == {"pixel_values", "grid_thws"} <= set(found)
    for name, values in expected.items():
        assert torch.equal(found[name], values)


def test_a_pruned_prompt_says_how_large_each_picture_was(processor: Any) -> None:
    pruned = processed(processor, {"tokens": 5}, "image", PICTURES)
    ids, info = pruned["prompt_token_ids"], processor.info
    sizes = [*SIZES, SIZES[0]]
    kept = [min(5, info.family.layout(info, *size, {}).tokens) for size in sizes]
    expected = "".join(
        f"<|media_begin|>image {width}x{height}<|media_content|>"
        f"{'<|media_pad|>' * number}<|media_end|>"
        for (height, width), number in zip(sizes, kept, strict=True)
    )
    assert f"{expected}What?" in info.get_tokenizer().decode(ids)
    for place, number in zip(pruned["mm_placeholders"]["image"], kept, strict=True):
        tokens = torch.tensor(ids[place.offset : place.offset + place.length])
        assert torch.equal(place.is_embed, tokens == info.image_token)
        assert place.get_num_embeds() == number


def test_methods_that_read_text_are_refused(processor: Any) -> None:
    """They could not tell where an image is between the words."""
    family, hf_config = processor.info.family, processor.info.get_hf_config()
    refused = {n for n in methods.names() if not family.serves(hf_config, methods.get(n))}
    assert refused == {
        "pixels",
        "resize",
        *(n for n in methods.names() if methods.get(n).needs_text),
    }
    with pytest.raises(ConfigError, match="^method is 'cdpruner', which reads the text after"):
        family.check_method(hf_config, methods.get("cdpruner"))
    with pytest.raises(ConfigError, match="allowed: in_patch_limit in preprocessor_config.json"):
        family.check_method(hf_config, methods.get("resize"))


def test_another_projector_count_or_processor_stops_the_start(
    processor: Any, rewritten: tuple[Any, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    vision, config = rewritten
    config["fixed_output_tokens"] = 64
    with pytest.raises(ConfigError, match="^fixed_output_tokens is 64; allowed: null"):
        processor.info.family.largest(processor.info)
    vision.mm_projector_type = "patchmerger"
    with pytest.raises(ConfigError, match="^mm_projector_type is 'patchmerger'; allowed: 'patchm"):
        processor.info.family.largest(processor.info)
    monkeypatch.setattr(processor.info, "image_processor", object())
    with pytest.raises(ConfigError, match="^image processor is object; allowed: KimiK25FusedVisi"):
        processor.info.family.largest(processor.info)
