"""MiniCPM-V by its classes in vLLM, without an engine, beside stock vLLM: the whole picture and the
slices of pictures of any shape, as a request would have them cut and merged, and where they are."""

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
from vllm_pruner.families.minicpm_slices import item_layout
from vllm_pruner.layout.positions import split
from vllm_pruner.layout.shares import shares
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.errors import ConfigError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not compat.at_least((0, 32)), reason="another vLLM, 0.31"),
]

CANVAS = "demo-minicpm4.7"
"""The one whose positions have rows and columns."""

CHECKPOINTS = ["demo-minicpm4.6", CANVAS]
_NOISE = np.random.default_rng(0)
PICTURES = [
    Image.fromarray(_NOISE.integers(0, 256, (*size, 3), np.uint8))
    for size in ((224, 336), (420, 120), (100, 100), (700, 900))
]
CLIP = _NOISE.integers(0, 256, (3, 112, 336, 3), np.uint8)
STEPS = (4096, 37, 7)
"""Tokens that a decoder is fed at once."""

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

    checkpoint: str
    stock: dict[str, Stock]
    film: Stock
    ours: Side

    def rows(self, output: Any) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """What the decoder gets of the pictures of a prompt, without and with their places."""
        found = self.ours.rows(output)[0]["image"]
        return [self.bare(each) for each in found], found

    def bare(self, rows: torch.Tensor) -> torch.Tensor:
        return split(rows)[0] if self.checkpoint == CANVAS else rows


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
        yield Pair(request.param, stock, film, ours)
    patch.undo()


def _made(side: Side, kinds: list[str], asked: dict[str, Any]) -> Stock:
    output = side.prompt(kinds, **asked)
    return Stock(output, side.rows(output)[0], side.positions(output))


@pytest.mark.parametrize("name", REQUESTS)
def test_rate_0_is_stock_bit_for_bit(pair: Pair, name: str) -> None:
    stock = pair.stock[name]
    output = pair.ours.prompt(["image"] * 4, {"rate": 0.0}, **REQUESTS[name])
    assert output["prompt_token_ids"] == stock.output["prompt_token_ids"]
    bare, rows = pair.rows(output)
    for found, whole in zip(bare, stock.rows["image"], strict=True):
        assert torch.equal(found, whole)
    for step in STEPS if pair.checkpoint == CANVAS else ():
        positions, delta = pair.ours.positions(output, {"image": rows}, step)
        assert torch.equal(positions, stock.positions[0]) and delta == stock.positions[1]
        assert not torch.equal(positions[1], positions[2]), "a canvas"


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
    bare, rows = pair.rows(output)
    chosen = []
    for item, together, whole in zip(items, bare, stock.rows["image"], strict=True):
        alone, kept = _alone(pair.ours, item)
        chosen.append(kept)
        torch.testing.assert_close(pair.bare(alone), together)
        torch.testing.assert_close(together, whole[kept])
        sizes = [grid.tokens for grid in _layout(item).grids]
        crops = np.searchsorted(np.cumsum(sizes), kept, side="right")
        assert np.bincount(crops, minlength=len(sizes)).tolist() == shares(sizes, len(kept))
    at = stock.at(output, {"image": chosen})
    _check_positions(pair, output, rows, stock.positions, at)


def _check_positions(
    pair: Pair, output: Any, rows: list[torch.Tensor], stock: Any, at: list[int]
) -> None:
    """Those of stock vLLM's whole prompt, or one behind the other."""
    if pair.checkpoint != CANVAS:
        positions, delta = pair.ours.positions(output)
        assert torch.equal(positions, torch.arange(len(at)).expand(3, -1)) and delta == 0
        return
    for step in STEPS:
        positions, delta = pair.ours.positions(output, {"image": rows}, step)
        assert torch.equal(positions, stock[0][:, at])
        assert delta + len(at) == stock[1] + stock[0].shape[1]


def _layout(item: Any) -> Any:
    return item_layout(None, batched([item]))


def _alone(side: Side, item: Any) -> tuple[torch.Tensor, list[int]]:
    """The rows of an image alone, and what is kept of it."""
    side.chosen.clear()
    with torch.inference_mode():
        (rows,) = side.model.embed_multimodal(**batched([item]))
    return rows, side.chosen[0]


@pytest.mark.parametrize("settings", [{"rate": 0.6}, {"tokens": 3}, {"rate": 1e-12}], ids=str)
def test_compact_positions_lie_between_the_marks_of_a_smaller_canvas(
    pair: Pair, settings: dict[str, Any]
) -> None:
    if pair.checkpoint != CANVAS:
        pytest.skip("its positions have no rows and columns")
    found = {}
    for how in ("original", "compact"):
        output = pair.ours.prompt(["image"] * 4, {**settings, "positions": how})
        _, rows = pair.rows(output)
        found[how] = pair.ours.positions(output, {"image": rows}, 37)
    (original, behind), (compact, sooner) = found.values()
    assert (sooner < behind) == ("tokens" in settings or settings["rate"] > 0.5)
    ids = torch.tensor(output["prompt_token_ids"])
    words = pair.ours.processor.info.get_tokenizer().get_vocab()
    is_part = torch.zeros(len(ids), dtype=torch.bool)
    for start, end in zip(
        (ids == words["<slice>"]).nonzero(), (ids == words["</slice>"]).nonzero(), strict=True
    ):
        part = compact[:, start + 1 : end]
        is_part[start + 1 : end] = True
        assert bool((part >= compact[:, start]).all() and (part <= compact[:, end]).all())
    assert 0 < int(is_part.sum()) < int((ids == words["<|image_pad|>"]).sum())


def test_a_checkpoint_that_asks_for_no_canvas_has_plain_positions_as_in_stock_vllm(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    if pair.checkpoint != CANVAS:
        pytest.skip("it has them anyway")
    monkeypatch.setattr(pair.ours.model, "starts", ())
    monkeypatch.setattr(pair.ours.model, "_uses_canvas_mrope", False)
    output = pair.ours.prompt(["image"] * 4, {"rate": 0.6})
    _, rows = pair.rows(output)
    positions, delta = pair.ours.positions(output, {"image": rows}, 37)
    assert torch.equal(positions, torch.arange(positions.shape[1]).expand(3, -1)) and delta == 0


@pytest.mark.parametrize("text", ["<image>", "</slice>"])
def test_a_mark_that_is_no_image_s_is_refused_where_positions_count_from_it(
    pair: Pair, text: str
) -> None:
    info = pair.ours.processor.info
    items = info.parse_mm_data({"image": PICTURES[:1]})
    prompt = f"<|im_start|>user\n<|image_pad|>\nA {text} here?<|im_end|>\n"

    def made(rate: float) -> Any:
        return pair.ours.processor(
            prompt, items, hf_processor_mm_kwargs={"vtprune": {"rate": rate}}
        )

    assert made(0.0)["prompt_token_ids"]
    if pair.checkpoint != CANVAS:
        assert made(0.5)["prompt_token_ids"]
        return
    with pytest.raises(VLLMValidationError, match=f"prompt has a {text} that is not of an image"):
        made(0.5)


def test_each_view_shows_its_part_of_the_picture(pair: Pair) -> None:
    """Whose left half is red and whose right half is blue: two rows of three slices, and it all."""
    processor = pair.ours.processor
    output = processed(processor, {"tokens": 4}, "image", [halves(672, 448)])
    item = batched(output["mm_kwargs"]["image"])
    layout = item_layout(None, item)
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
    assert torch.equal(pair.bare(found), whole)
    if pair.checkpoint == CANVAS:
        positions, delta = pair.ours.positions(output, rows, 37)
        stock, behind = pair.film.positions
        assert delta + positions.shape[1] == behind + stock.shape[1]
        places = zip(
            output["mm_placeholders"]["video"],
            pair.film.output["mm_placeholders"]["video"],
            strict=True,
        )
        for ours, theirs in places:
            clip = slice(theirs.offset, theirs.offset + theirs.length)
            assert torch.equal(positions[:, ours.offset :][:, : ours.length], stock[:, clip])
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
