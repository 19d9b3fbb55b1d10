"""MiniCPM-V by its class in vLLM, without an engine, beside stock vLLM: the whole picture and the
slices of pictures of any shape, as a request would have them cut and merged."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import beside_stock
import numpy as np
import pytest
import torch
import vllm
from beside_stock import Side, Stock
from contract import batched, processed
from halves import halves
from PIL import Image
from pruned_model import pruned_model, stock_model
from pruning_processor import pruning_processor
from vllm.exceptions import VLLMValidationError

from vllm_pruner import compat
from vllm_pruner.layout.shares import shares
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.errors import ConfigError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not compat.minicpm_known(), reason="another vLLM, 0.31"),
]

CHECKPOINTS = ["demo-minicpm4.6"]
_NOISE = np.random.default_rng(0)
PICTURES = [
    Image.fromarray(_NOISE.integers(0, 256, (*size, 3), np.uint8))
    for size in ((224, 336), (420, 120), (100, 100), (700, 900))
]
CLIP = _NOISE.integers(0, 256, (3, 112, 336, 3), np.uint8)
REQUESTS: dict[str, dict[str, Any]] = {
    "as they are": {},
    "four times as many": {"downsample_mode": "4x"},
    "fewer slices": {"max_slice_nums": 4},
    "of images alone": {"images_kwargs": {"max_slice_nums": 2, "downsample_mode": "4x"}},
}
"""Arguments of a request for HF's processor."""


@dataclass
class Pair:
    """A model, and what stock vLLM makes of the pictures by each request."""

    stock: dict[str, Stock]
    film: Stock
    ours: Side


@pytest.fixture(scope="module", params=CHECKPOINTS)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    flags = {"dtype": "float32", "enforce_eager": True}
    patch = pytest.MonkeyPatch()
    patch.setitem(beside_stock.ITEMS, "image", PICTURES)
    patch.setitem(beside_stock.ITEMS, "video", [CLIP])
    with stock_model(request.param, **flags) as (config, model):
        side = Side(config, model)
        stock = {name: _made(side, ["image"] * 4, asked) for name, asked in REQUESTS.items()}
        film = _made(side, ["image", "video", "image"], {})
    with pruned_model(request.param, {}, **flags) as (config, model):
        ours = Side(config, model)
        model.on_selection = lambda _tokens, index, _layout: ours.chosen.extend(index.tolist())
        yield Pair(stock, film, ours)
    patch.undo()


def _made(side: Side, kinds: list[str], asked: dict[str, Any]) -> Stock:
    output = side.prompt(kinds, **asked)
    return Stock(output, side.rows(output)[0], side.positions(output))


@pytest.mark.parametrize("name", REQUESTS)
def test_rate_0_is_stock_bit_for_bit(pair: Pair, name: str) -> None:
    stock = pair.stock[name]
    output = pair.ours.prompt(["image"] * 4, {"rate": 0.0}, **REQUESTS[name])
    assert output["prompt_token_ids"] == stock.output["prompt_token_ids"]
    rows, _ = pair.ours.rows(output)
    for found, whole in zip(rows["image"], stock.rows["image"], strict=True):
        assert torch.equal(found, whole)


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize(
    "settings",
    [{"rate": 1e-12}, {"rate": 0.6}, {"tokens": 2, "method": "scope", "importance": "merger_norm"}],
    ids=str,
)
def test_kept_rows_are_those_of_stock_each_slice_with_its_share(
    pair: Pair, name: str, settings: dict[str, Any]
) -> None:
    """All pictures in one batch, in which slices of one size are encoded together and stock vLLM
    pads and masks them, so up to rounding."""
    stock = pair.stock[name]
    output = pair.ours.prompt(["image"] * 4, settings, **REQUESTS[name])
    items = output["mm_kwargs"]["image"]
    rows, _ = pair.ours.rows(output)
    chosen, layouts = [], []
    for item, together, whole in zip(items, rows["image"], stock.rows["image"], strict=True):
        alone, kept = _alone(pair.ours, item)
        chosen.append(kept)
        torch.testing.assert_close(alone, together)
        torch.testing.assert_close(alone, whole[kept])
        layouts.append(pair.ours.model.family.images(None, batched([item]))[0].layout)
    stock.at(output, {"image": chosen})
    for kept, layout in zip(chosen, layouts, strict=True):
        sizes = [grid.tokens for grid in layout.grids]
        ends = np.cumsum(sizes)
        counts = np.bincount(np.searchsorted(ends, kept, side="right"), minlength=len(sizes))
        assert counts.tolist() == shares(sizes, len(kept))


def _alone(side: Side, item: Any) -> tuple[torch.Tensor, list[int]]:
    """The rows of an image alone, and what is kept of it."""
    side.chosen.clear()
    with torch.inference_mode():
        (rows,) = side.model.embed_multimodal(**batched([item]))
    return rows, side.chosen[0]


def test_each_view_shows_its_part_of_the_picture(pair: Pair) -> None:
    """Whose left half is red and whose right half is blue: two rows of three slices, and it all."""
    processor = pair.ours.processor
    output = processed(processor, {"tokens": 4}, "image", [halves(672, 448)])
    item = batched(output["mm_kwargs"]["image"])
    layout = processor.info.family.images(None, item)[0].layout
    pieces, views = processor.info.seen(item), layout.views()
    assert layout.slices == (2, 3) and len(pieces) == len(views) == 7
    assert [view.crop for view in views] == [*range(7)]
    redder = (pieces[:, 0] > pieces[:, 2]).float().mean(dim=(1, 2)).round(decimals=1).tolist()
    assert redder == [0.5, *[1.0, 0.5, 0.0] * 2]


def test_a_video_stays_whole_beside_pruned_pictures_or_is_refused(pair: Pair) -> None:
    kinds = ["image", "video", "image"]
    with pytest.raises(VLLMValidationError, match="cannot be pruned; allowed: video_rate 0"):
        pair.ours.prompt(kinds, {"rate": 0.5})
    output = pair.ours.prompt(kinds, {"rate": 0.5, "video_rate": 0.0})
    rows, _ = pair.ours.rows(output)
    (found,), (whole,) = rows["video"], pair.film.rows["video"]
    assert torch.equal(found, whole)
    half = PruneConfig(rate=0.5)
    for kept, every in zip(rows["image"], pair.film.rows["image"], strict=True):
        assert len(kept) == half.keep_count(len(every))


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
@pytest.mark.parametrize("kwargs", [{}, {"max_slice_nums": 1}, {"downsample_mode": "4x"}], ids=str)
def test_no_picture_has_more_tokens_than_vllm_profiles_memory_with(
    checkpoint: str, kwargs: dict[str, Any]
) -> None:
    """As far as limits let it be long."""
    info = pruning_processor(checkpoint, kwargs=kwargs).info
    largest, draw = info.family.largest(info).tokens, random.Random(0)
    found = []
    for _ in range(3000):
        short, ratio = draw.randint(1, 1200), 500 ** draw.random()
        size = [short, max(1, int(short * ratio))]
        draw.shuffle(size)
        found.append(info.family.layout(info, *size, {}).tokens)
    assert 0.9 * largest < max(found) <= largest


def test_it_is_refused_where_vllm_counts_otherwise_than_it_cuts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    info = pruning_processor(CHECKPOINTS[0]).info
    monkeypatch.setattr(vllm, "__version__", "0.31.0")
    sentence = "^architecture is MiniCPMV4_6For.*; allowed: vLLM 0.32 or newer, because 0.31 counts"
    with pytest.raises(ConfigError, match=sentence):
        info.family.largest(info)
