"""Pixels that come as bytes leave the model as those that HF's processor normalised, to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pruned_model import pruned_model
from vllm.engine.arg_utils import EngineArgs
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm_process import MODELS

from vllm_pruner.settings.keys import BYTES

IMAGE, WORD = 4, 7
SETTINGS = {"rate": 0.5, "feature_cache_mb": 0}  # nothing is found that the other way left


@pytest.fixture(scope="module", params=["demo", "demo-next"])
def made(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A pruned model and two processors of it, which send bytes and floats."""
    flags: dict[str, Any] = {"dtype": "float32", "max_num_batched_tokens": 9216}
    with pruned_model(request.param, SETTINGS, **flags) as (config, model):
        floats = EngineArgs(
            model=str(MODELS / request.param),
            mm_processor_kwargs={"vtprune": {**SETTINGS, "byte_pixels": False}},
            max_model_len=4096,
            dtype="float32",
        )
        yield SimpleNamespace(
            model=model,
            as_bytes=MULTIMODAL_REGISTRY.create_processor(config.model_config),
            as_floats=MULTIMODAL_REGISTRY.create_processor(floats.create_model_config()),
        )


SIZE = (90, 130)


def fields(processor: Any, settings: dict[str, Any], *sizes: tuple[int, int]) -> dict[str, Any]:
    """Pictures as the model gets them, a batch of as many requests."""
    items = []
    for size in sizes or [SIZE]:
        values = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        output = processor(
            [IMAGE, WORD],
            processor.info.parse_mm_data({"image": [Image.fromarray(values)]}),
            hf_processor_mm_kwargs={"vtprune": settings},
        )
        items += output["mm_kwargs"]["image"]
    return {
        name: elem.field.reduce_data([item[name] for item in items])
        for name, elem in items[0].items()
    }


@pytest.mark.parametrize("settings", [{}, {"rate": 0.0}, {"method": "uniform"}], ids=str)
def test_bytes_are_embedded_as_floats_are(made: Any, settings: dict[str, Any]) -> None:
    sent, whole = fields(made.as_bytes, settings), fields(made.as_floats, settings)
    assert BYTES in sent
    assert "pixel_values" in whole
    with torch.inference_mode():
        (rows,) = made.model.embed_multimodal(**sent)
        (expected,) = made.model.embed_multimodal(**whole)
    assert rows.dtype == torch.float32
    assert torch.equal(rows, expected)


@pytest.mark.parametrize("settings", [{}, {"rate": 0.0}], ids=str)
def test_pictures_of_different_sizes_share_a_batch(made: Any, settings: dict[str, Any]) -> None:
    sizes = SIZE, (300, 90), (224, 224)
    sent, whole = (fields(it, settings, *sizes) for it in (made.as_bytes, made.as_floats))
    with torch.inference_mode():
        rows = made.model.embed_multimodal(**sent)
        expected = made.model.embed_multimodal(**whole)
    assert len(rows) == len(sizes)
    for found, each in zip(rows, expected, strict=True):
        assert torch.equal(found, each)


def test_a_picture_is_seen_as_it_was_sent_either_way(made: Any) -> None:
    """What the playground draws."""
    sent = made.as_bytes.info.seen(fields(made.as_bytes, {}))
    whole = made.as_floats.info.seen(fields(made.as_floats, {}))
    image_processor = made.as_bytes.info.get_hf_processor().image_processor
    mean, std = (
        torch.tensor(channels).view(-1, 1, 1)
        for channels in (image_processor.image_mean, image_processor.image_std)
    )
    assert torch.allclose(sent / 255, whole * std + mean, atol=1e-5)
