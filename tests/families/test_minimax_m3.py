"""What is MiniMax-M3's own: two rules for sizes, and videos whose patches see other frames. Its
decoder, which vLLM builds on a CPU, is here for what it embeds; `test_relatives` has the rest."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from beside_stock import Side
from PIL import Image
from pruned_model import pruned_model
from pruning_processor import pruning_processor

from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.methods.base import Need
from vllm_pruner.plan import ImagePlan
from vllm_pruner.settings.keys import PLAN_TEXT, REPORT
from vllm_pruner.tower import EncoderImage

pytestmark = pytest.mark.slow

NAME = "demo-minimax-m3"


def _tokens(processor: Any, height: int, width: int, **kwargs: Any) -> int:
    """Visual tokens of an image, as vLLM's processor has them."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    items = processor.info.parse_mm_data({"image": [Image.fromarray(pixels)]})
    output = processor("]<]image[>[What?", items, hf_processor_mm_kwargs=kwargs)
    (grid,) = (each["image_grid_thw"].data for each in output["mm_kwargs"]["image"])
    found: int = output[REPORT]["original"]
    assert found == int(grid.prod()) // 4
    return found


@pytest.mark.parametrize(
    ("kwargs", "most"),
    [
        ({"max_pixels": 53 * 784}, 53),
        ({"max_pixels": 54 * 784}, 54),
        ({"images_kwargs": {"max_pixels": 50 * 784}}, 50),
        ({"max_long_side_pixel": 1000}, 3200),
        ({"max_long_side_pixel": 2016}, 72 * 72),
        ({"max_long_side_pixel": 5000}, 128 * 128),
    ],
    ids=str,
)
def test_memory_is_profiled_with_the_largest_image(kwargs: dict[str, Any], most: int) -> None:
    """By the longest side, a narrow one that is enlarged, or one of all pixels that are allowed."""
    info = pruning_processor(NAME, kwargs=kwargs).info
    family, draw = info.family, random.Random(0)
    assert family.largest(info).tokens == most
    for _ in range(2000):
        height = int(2 ** draw.uniform(0, 12))
        width = draw.randint(max(1, height // 200), min(200 * height, 4000))
        try:
            assert family.layout(info, height, width, {}).tokens <= most
        except ValueError as error:
            assert "exceeds max_total_pixels" in str(error) or "aspect ratio" in str(error)


def test_a_request_has_a_rule_of_its_own() -> None:
    processor = pruning_processor(NAME)
    for kwargs, tokens in (
        ({}, 7 * 11),
        ({"max_pixels": 20 * 784}, 3 * 5),
        ({"images_kwargs": {"max_pixels": 20 * 784}}, 3 * 5),
        ({"max_long_side_pixel": 150}, 3 * 5),
    ):
        assert processor.info.family.layout(processor.info, 200, 310, kwargs).tokens == tokens
        assert _tokens(processor, 200, 310, **kwargs) == tokens


@pytest.fixture(scope="module")
def side() -> Iterator[Side]:
    with pruned_model(NAME, {}, dtype="float32", enforce_eager=True) as (config, model):
        made = Side(config, model)
        model.on_selection = lambda _tokens, index, _layout: made.chosen.extend(index.tolist())
        yield made


def test_a_method_that_compares_frames_has_their_times_embedded(side: Side) -> None:
    whole, _ = side.rows(side.prompt(["video"], {"video_rate": 0.0}))
    output = side.prompt(["video"], {"video_rate": 0.5, "video_method": "evs"})
    rows, chosen = side.rows(output)
    (item,) = output["mm_kwargs"]["video"]
    between = [token for text in ImagePlan.of_item(item.get_data()).between for token in text]
    times = side.model.language_model.embed_input_ids(torch.tensor(between))
    expected = torch.cat([whole["video"][0][chosen["video"][0]], times])
    assert between and len(rows["video"][0]) == len(expected)
    for row in rows["video"][0]:
        assert bool(((expected - row).abs().amax(dim=1) < 1e-5).any())


def test_methods_that_read_text_get_the_question(side: Side) -> None:
    output = side.prompt(["image"], {"method": "cdpruner", "tokens": 9})
    (item,) = output["mm_kwargs"]["image"]
    text = side.processor.info.get_tokenizer().decode(item.get_data()[PLAN_TEXT].tolist())
    assert text == "So?"
    rows, _ = side.rows(output)
    assert len(rows["image"][0]) == 9


@torch.inference_mode()
def test_patches_of_a_video_see_its_segment(side: Side) -> None:
    """All frames, or as many as the checkpoint says."""
    tower, needs = side.model.tower, frozenset({Need.IMPORTANCE})
    patches = torch.randn(4 * 4 * 6, 1176, generator=torch.Generator().manual_seed(0))
    video = EncoderImage(patches, GridLayout(2, 3, frames=4))
    frames = [EncoderImage(each, GridLayout(2, 3)) for each in patches.split(24)]
    transformer = side.model.vision_tower.vision_model
    seen_alone = torch.cat([tower.encode([each], needs)[Need.IMPORTANCE] for each in frames])
    together = tower.encode([video], needs)[Need.IMPORTANCE]
    assert together.shape == seen_alone.shape
    assert not torch.allclose(together, seen_alone, rtol=1e-2)
    transformer.vision_segment_max_frames = 1
    try:
        apart = tower.encode([video], needs)[Need.IMPORTANCE]
    finally:
        transformer.vision_segment_max_frames = None
    torch.testing.assert_close(apart, seen_alone)
