"""A tower that encodes some tokens of its images: each row is what it would be if there had never
been others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from contract import PACKED
from nightly import NIGHTLY
from pruned_model import picture_batch, pruned_model
from vllm_process import MODELS

from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.methods.pixels import worth
from vllm_pruner.plan import ImagePlan
from vllm_pruner.tower import FEATURES, EncoderImage

pytestmark = pytest.mark.slow

EARLY = ["demo-qwen2", "demo-qwen2.5", "demo-qwen3", "demo-qwen3.5", "demo-glm4v"]
EARLY += ["demo-glm-ocr", "demo-paddleocr", "demo-dots-ocr", "demo-lightonocr", "demo-ernie4.5"]
EARLY += ["demo-keye1.5"]
RELATIVES = [
    *("demo-exaone4.5", "demo-cosmos3", "demo-interns2", "demo-mobius", "demo-qwen4"),
    *("demo-qwen2.5-omni", "demo-keye"),
]
"""Those of the same towers."""

SIZES = [(224, 336), (280, 196), (120, 420)]


@pytest.fixture(
    scope="module",
    params=[*EARLY, *PACKED, *(pytest.param(each, marks=NIGHTLY) for each in RELATIVES)],
)
def made(request: pytest.FixtureRequest) -> Iterator[tuple[Any, Any]]:
    dtype = json.loads((MODELS / request.param / "config.json").read_text())["dtype"]
    flags = {"dtype": dtype, "trust_remote_code": True}
    flags["mm_encoder_only"] = request.param in PACKED
    with pruned_model(request.param, {}, **flags) as (config, model), torch.inference_mode():
        yield config, model


def _images(made: tuple[Any, Any]) -> list[EncoderImage]:
    config, model = made
    batch = picture_batch(config, SIZES, (1,), {"rate": 0.5})
    ImagePlan.pop_all(batch)
    images: list[EncoderImage] = model._images(batch)
    assert len({image.layout for image in images}) == len(SIZES)
    return images


def _drawn(images: list[EncoderImage]) -> list[torch.Tensor]:
    """About a third of each image's tokens."""
    draw = torch.Generator().manual_seed(0)
    return [
        torch.randperm(image.layout.tokens, generator=draw)[: image.layout.tokens // 3].sort()[0]
        for image in images
    ]


def _some(model: Any, images: list[EncoderImage], kept: list[torch.Tensor]) -> torch.Tensor:
    """The rows of kept tokens, image by image."""
    starts = torch.tensor([0, *(image.layout.tokens for image in images)]).cumsum(0).tolist()
    index = torch.cat([each + start for each, start in zip(kept, starts, strict=False)])
    rows: torch.Tensor = model.tower.encode_some(images, index, [len(each) for each in kept])
    return rows


def _is_close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    near = {"rtol": 1e-5, "atol": 1e-5} if found.dtype == torch.float32 else {"rtol": 0.02}
    return torch.allclose(found.float(), expected.float(), **({"atol": 0.02} | near))


def test_all_tokens_are_the_whole(made: tuple[Any, Any]) -> None:
    model, images = made[1], _images(made)
    whole = model.tower.encode(images, frozenset())[FEATURES]
    every = [torch.arange(image.layout.tokens) for image in images]
    assert torch.equal(_some(model, images, every), whole)


def test_a_corner_alone_is_the_picture_of_that_corner(made: tuple[Any, Any]) -> None:
    """Rotary positions and windows count from the upper left. Learned positions are stretched over
    the whole picture, so they are made alike everywhere."""
    model, image = made[1], _images(made)[0]
    modules = model.tower.module.modules()
    learned = [each for each in modules if isinstance(each, torch.nn.Embedding)]
    before = [each.weight.clone() for each in learned]
    for each in learned:
        each.weight[:] = each.weight[:1]
    layout, (rows, columns) = image.layout, (4, 5)
    assert isinstance(layout, GridLayout)
    corner = (torch.arange(rows)[:, None] * layout.columns + torch.arange(columns)).flatten()
    pixels = image.pixels.unflatten(0, (layout.tokens, -1))[corner].flatten(0, 1)
    cut = EncoderImage(pixels, replace(layout, rows=rows, columns=columns))
    found = _some(model, [image], [corner])
    expected = model.tower.encode([cut], frozenset())[FEATURES]
    for each, weight in zip(learned, before, strict=True):
        each.weight[:] = weight
    assert _is_close(found, expected)


def test_what_is_dropped_counts_for_nothing_and_what_is_kept_for_much(
    made: tuple[Any, Any],
) -> None:
    model, images = made[1], _images(made)
    kept = _drawn(images)
    rows = _some(model, images, kept)
    others = []
    for image, index in zip(images, kept, strict=True):
        pixels = image.pixels.flip(0, 1).unflatten(0, (image.layout.tokens, -1)).clone()
        pixels[index] = image.pixels.unflatten(0, (image.layout.tokens, -1))[index]
        others.append(replace(image, pixels=pixels.flatten(0, 1)))
    assert torch.equal(_some(model, others, kept), rows)
    whole = model.tower.encode(images[:1], frozenset())[FEATURES][kept[0]]
    assert not _is_close(rows[: len(whole)], whole), "the others were looked at"
    moved = [(each + 1) % image.layout.tokens for each, image in zip(kept, images, strict=True)]
    blank = [replace(image, pixels=torch.zeros_like(image.pixels)) for image in images]
    learned = getattr(model.tower.module, "pos_embed", None)
    if learned is not None:  # of a blank picture these are all
        assert not torch.equal(_some(model, blank, [each.sort()[0] for each in moved]), rows)


def test_images_are_encoded_alike_alone_and_together(made: tuple[Any, Any]) -> None:
    model, images = made[1], _images(made)
    kept = _drawn(images)
    alone = [_some(model, [one], [index]) for one, index in zip(images, kept, strict=True)]
    assert _is_close(_some(model, images, kept), torch.cat(alone))


def test_a_request_gets_the_rows_of_the_tokens_of_most_worth(made: tuple[Any, Any]) -> None:
    """Beside images by another method and unpruned ones, in one batch."""
    config, model = made
    early, behind, off = (
        {"method": "pixels", "tokens": 20, "floor": "off"},
        {"tokens": 9},
        {"rate": 0.0},
    )
    seen: list[tuple[Any, torch.Tensor, Any]] = []
    alone = [
        model.embed_multimodal(**picture_batch(config, [size], (3,), each))[0]
        for size, each in zip(SIZES, (early, behind, early), strict=True)
    ]
    model.on_selection = lambda *selection: seen.append(selection)
    batch = picture_batch(config, SIZES[:1], (3,), early)
    images = model._images({k: v for k, v in batch.items() if not k.startswith("vtprune")})
    (rows,) = model.embed_multimodal(**batch)
    model.on_selection = None
    ((tokens, index, layout),) = seen
    assert torch.equal(rows, alone[0])
    assert tokens.features.shape[:2] == (1, layout.tokens)
    scores = worth(tokens.features, layout.whole_grid)[0]
    least = scores[index[0]].min()
    assert len(index[0]) == len(rows) == 20
    assert int((scores > least).sum()) < 20 <= int((scores >= least).sum())
    encoded = model.tower.project(_some(model, images, [index[0]]))
    assert torch.equal(rows[:, : encoded.shape[1]], encoded)
    unpruned = model.embed_multimodal(**picture_batch(config, SIZES[:1], (3,), off))[0]
    assert len(unpruned) == layout.tokens
