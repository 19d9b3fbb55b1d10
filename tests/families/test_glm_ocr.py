"""GLM-OCR's tower, which vLLM lets prepare nothing: its rows, what methods read in it, and graphs
that it has in name only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from contract import batched
from norm_oracle import last_norms
from PIL import Image
from pruned_model import picture_prompt, pruned_model
from started import engine_arguments
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.models.glm_ocr import modeling_glm_ocr
from vllm_process import MODELS

from vllm_pruner import compat, plugin
from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.methods.base import Need
from vllm_pruner.plan import ImagePlan
from vllm_pruner.tower import FEATURES, EncoderImage

pytestmark = pytest.mark.slow

CHECKPOINT = "demo-glm-ocr"
SIZES = [(224, 336), (280, 196), (120, 420)]


def _grain(size: tuple[int, int]) -> Image.Image:
    draw = np.random.default_rng(size)
    return Image.fromarray(draw.integers(0, 256, (*size, 3), np.uint8))


@pytest.fixture(scope="module")
def made() -> Iterator[tuple[Any, Any]]:
    with pruned_model(CHECKPOINT, {}, dtype="float32") as (config, model), torch.inference_mode():
        yield config, model


def _images(made: tuple[Any, Any], pictures: list[Image.Image]) -> list[EncoderImage]:
    config, model = made
    outputs = [picture_prompt(config, picture, {"rate": 0.5}) for picture in pictures]
    batch = batched([item for output in outputs for item in output["mm_kwargs"]["image"]])
    ImagePlan.pop_all(batch)
    found: list[EncoderImage] = model._images(batch)
    return found


def _last_attention(inputs: Any) -> torch.Tensor:
    """The tower's last layer's, `[heads, patches, patches]`, by transformers."""
    stock: Any = AutoModelForImageTextToText.from_pretrained(
        MODELS / CHECKPOINT, dtype="float32", attn_implementation="eager"
    ).eval()
    eager, seen = modeling_glm_ocr.eager_attention_forward, []

    def look(*args: Any, **kwargs: Any) -> Any:
        found = eager(*args, **kwargs)
        seen.append(found[1])
        return found

    with mock.patch.object(modeling_glm_ocr, "eager_attention_forward", look):
        stock.model.visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"])
    last: torch.Tensor = seen[-1][0]
    return last


def test_what_is_run_here_is_what_vllm_runs(made: tuple[Any, Any]) -> None:
    """Of pictures of several sizes, and of a video, whose frames are apart."""
    images, tower = _images(made, [*map(_grain, SIZES)]), made[1].tower
    frames = torch.cat([images[0].pixels[:48], images[1].pixels[:48]])
    images.append(EncoderImage(frames, GridLayout(3, 4, frames=2)))
    pixels = torch.cat([image.pixels for image in images])
    grids = [tower._grid(image) for image in images]
    assert [grid[0] for grid in grids] == [1, 1, 1, 2]
    found = tower.encode(images, frozenset())[FEATURES]
    assert torch.equal(found, tower.module(pixels, grids))


def test_what_methods_read_is_transformers(made: tuple[Any, Any]) -> None:
    """Attention received in the last layer, and norms in front of the merger."""
    picture = _grain(SIZES[0])
    processor: Any = AutoProcessor.from_pretrained(MODELS / CHECKPOINT).image_processor
    inputs = processor(images=[picture], return_tensors="pt")
    needs = frozenset({Need.IMPORTANCE, Need.MERGER_NORM})
    found = made[1].tower.encode(_images(made, [picture]), needs)
    attention = _last_attention(inputs)
    received = attention.mean(dim=(0, 1)).unflatten(0, (-1, 4)).sum(dim=1)
    assert float(received.max() / received.min()) > 1.5, "patches have favourites"
    torch.testing.assert_close(found[Need.IMPORTANCE], received, rtol=1e-3, atol=1e-6)
    norms = torch.tensor(last_norms(CHECKPOINT, picture))
    torch.testing.assert_close(found[Need.MERGER_NORM], norms, rtol=1e-3, atol=1e-3)


def test_vllms_graphs_of_this_tower_are_graphs_in_name_only(made: tuple[Any, Any]) -> None:
    with pytest.raises(AttributeError, match="embeddings"):
        made[1].visual.prepare_encoder_metadata([[1, 4, 4]])


def test_so_they_are_switched_off_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compat, "on_cuda", lambda: True)
    monkeypatch.setattr(plugin.logger.parent, "propagate", True)
    flags = {"compilation_config": {"cudagraph_mm_encoder": True}}
    arguments = engine_arguments(CHECKPOINT, {}, **flags)
    arguments.create_model_config()
    assert not arguments.compilation_config.cudagraph_mm_encoder
    assert "vtprune does not run this vision tower in CUDA graphs" in caplog.text
