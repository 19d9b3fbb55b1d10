"""Nemotron Nano VL's own: a tower that sees tokens of its own before each picture, pictures of any
shape, videos and audio that stay whole. Rows and prompts are held against stock vLLM's, which runs
this model in bfloat16 only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from beside_stock import ITEMS, Side, Stock
from contract import batched, processed
from PIL import Image
from pruned_model import pruned_model, stock_model
from pruning_processor import pruning_processor
from vllm.exceptions import VLLMValidationError
from vllm.transformers_utils.processors.nano_nemotron_vl import DynamicResolutionImageTiler

from vllm_pruner.compat.versions import at_least
from vllm_pruner.methods.base import TOWER, Need
from vllm_pruner.settings.errors import ConfigError

pytestmark = pytest.mark.slow

TILES, OMNI = "demo-nemotron", "demo-nemotron-omni"
PICTURE = Image.fromarray(np.random.default_rng(3).integers(0, 256, (900, 1300, 3), np.uint8))


@dataclass
class Pair:
    stock: dict[str, Stock]
    ours: Side


@pytest.fixture(scope="module", params=[TILES, OMNI])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    flags: dict[str, Any] = {"dtype": "bfloat16", "trust_remote_code": True, "enforce_eager": True}
    flags["mm_encoder_only"] = at_least((0, 33))  # whose Mamba lacks operators on a CPU here
    kinds = ["image"] if at_least((0, 33)) else ["image", "video"]
    kinds += ["audio"] if request.param == OMNI else []
    stock = {}
    with stock_model(request.param, **flags) as (config, model):
        side = Side(config, model)
        for kind in kinds:
            output = side.prompt([kind] * min(2, len(ITEMS[kind])))
            stock[kind] = Stock(output, side.rows(output)[0], None)
    with pruned_model(request.param, {}, **flags) as (config, model):
        ours = Side(config, model)
        model.on_selection = lambda _tokens, index, _layout: ours.chosen.extend(index.tolist())
        yield Pair(stock, ours)


def test_rate_0_is_stock_bit_for_bit(pair: Pair) -> None:
    for kind, stock in pair.stock.items():
        count = len(stock.rows[kind])
        output = pair.ours.prompt([kind] * count, {"rate": 0.0, "video_rate": 0.0})
        assert output["prompt_token_ids"] == stock.output["prompt_token_ids"]
        rows, _ = pair.ours.rows(output)
        for found, expected in zip(rows[kind], stock.rows[kind], strict=True):
            assert torch.equal(found, expected)


@pytest.mark.parametrize("settings", [{"rate": 1e-12}, {"rate": 0.5}, {"tokens": 7}], ids=str)
def test_kept_rows_are_those_of_stock(pair: Pair, settings: dict[str, Any]) -> None:
    """Up to rounding: a batch's pictures, and the tiles of one, are one sequence of the tower."""
    stock = pair.stock["image"]
    output = pair.ours.prompt(["image", "image"], settings)
    rows, chosen = pair.ours.rows(output)
    assert stock.at(output, chosen), "all other tokens of the prompt stay"
    for found, whole, index in zip(
        rows["image"], stock.rows["image"], chosen["image"], strict=True
    ):
        of_all = {1e-12: len(whole), 0.5: round(len(whole) / 2)}
        assert len(index) == settings.get("tokens", of_all.get(settings.get("rate", 0)))
        assert index == sorted({*index})
        torch.testing.assert_close(found, whole[index], atol=0.05, rtol=0.05)


def test_what_is_no_image_stays_whole_beside_pruned_ones(pair: Pair) -> None:
    others = [kind for kind in pair.stock if kind != "image"]
    output = pair.ours.prompt(["image", *others], {"tokens": 9, "video_rate": 0.0})
    rows, _ = pair.ours.rows(output)
    assert len(rows["image"][0]) == 9
    for kind in others:
        assert torch.equal(rows[kind][0], pair.stock[kind].rows[kind][0])


def test_a_video_is_refused_until_it_may_stay_whole(pair: Pair) -> None:
    said = "the message has a video, but those of nemotron_vl cannot be pruned; allowed: video_rate"
    with pytest.raises(VLLMValidationError, match=said):
        pair.ours.prompt(["video"], {"rate": 0.5})


@pytest.mark.skipif(not at_least((0, 32)), reason="vLLM 0.31's own pruning is refused")
@pytest.mark.skipif(at_least((0, 33)), reason="see `pair`")
@pytest.mark.parametrize("name", [TILES, OMNI])
def test_vllm_itself_prunes_videos_beside_pruned_pictures(name: str) -> None:
    """With its own rows and prompt, which is shorter than of a whole video."""
    flags: dict[str, Any] = {"dtype": "bfloat16", "trust_remote_code": True, "enforce_eager": True}
    with stock_model(name, **flags, video_pruning_rate=0.5) as (config, model):
        side = Side(config, model)
        output = side.prompt(["image", "video"])
        stock = Stock(output, side.rows(output)[0], None)
    with pruned_model(name, {"video_rate": 0.0}, **flags, video_pruning_rate=0.5) as made:
        ours = Side(*made)
        whole, pruned = (ours.prompt(["image", "video"], {"rate": rate}) for rate in (0.0, 0.5))
        rows, _ = ours.rows(pruned)
    assert whole["prompt_token_ids"] == stock.output["prompt_token_ids"]
    cut = len(whole["prompt_token_ids"]) - len(pruned["prompt_token_ids"])
    assert cut == len(stock.rows["image"][0]) - len(rows["image"][0]) > 0
    assert torch.equal(rows["video"][0], stock.rows["video"][0])


def test_the_text_of_a_question_is_what_is_no_mark(pair: Pair) -> None:
    info = pair.ours.processor.info
    words = info.get_tokenizer().get_vocab()
    marks = ["<image>", "<img>", "</img>", "<video>", "<so_start>", "<so_embedding>", "<so_end>"]
    assert info.marks == {words[each] for each in marks}


@torch.inference_mode()
def test_what_the_tower_captures_is_of_patches_alone(pair: Pair) -> None:
    """By the formulas, from query and key of the layer that they name. Of the demo's three teachers
    the tower returns the summaries of two."""
    model, tower = pair.ours.model, pair.ours.model.tower
    layers = model.vision_model.model.encoder.layers
    deep, midway = len(layers) - 1, round(3 / 8 * len(layers)) - 1
    seen: dict[int, Any] = {}

    def look(number: int, _layer: Any, given: Any) -> None:
        seen[number] = given[:2]

    handles = [
        layers[number].attn.attn.register_forward_pre_hook(partial(look, number))
        for number in (deep, midway)
    ]
    output = pair.ours.prompt(["image", "image"], {"rate": 0.0})
    images = model._images(batched(output["mm_kwargs"]["image"]))
    found = tower.encode(images, TOWER)
    for handle in handles:
        handle.remove()
    grids = [grid for image in images for grid in tower.grids(image)]
    expected = {
        Need.IMPORTANCE: _by_token(_maps(seen[deep], grids), grids, paid_by=[0, 1]),
        Need.RECEIVED: _by_token(_maps(seen[deep], grids), grids, paid_by=None),
        Need.RECEIVED_MIDWAY: _by_token(_maps(seen[midway], grids), grids, paid_by=None),
    }
    for need, scores in expected.items():
        torch.testing.assert_close(found[need], scores, atol=1e-6, rtol=1e-4)


OWN = 8
"""Tokens of the demo's tower before the patches."""


def _maps(given: Any, grids: list[tuple[int, int]]) -> list[torch.Tensor]:
    """The attention within each picture of a call, `[tokens, tokens]`, the mean over heads."""
    query, key = (each[0].float().unflatten(1, (6, -1)).transpose(0, 1) for each in given)
    maps, start = [], 0
    for rows, columns in grids:
        end = start + OWN + 4 * rows * columns
        logits = query[:, start:end] @ key[:, start:end].transpose(1, 2) / query.shape[2] ** 0.5
        maps.append(logits.softmax(dim=2).mean(dim=0))
        start = end
    return maps


def _by_token(
    maps: list[torch.Tensor], grids: list[tuple[int, int]], paid_by: list[int] | None
) -> torch.Tensor:
    """What the patches of each token get, of some tokens of the map or of all, in raster order."""
    scores = []
    for attention, (rows, columns) in zip(maps, grids, strict=True):
        payers = attention if paid_by is None else attention[paid_by]
        patches = payers.mean(dim=0)[OWN:].view(2 * rows, 2 * columns)
        for row in range(rows):
            for column in range(columns):
                at = slice(2 * row, 2 * row + 2), slice(2 * column, 2 * column + 2)
                scores.append(patches[at].sum())
    return torch.stack(scores)


def test_a_request_says_how_many_tiles() -> None:
    processor = pruning_processor(TILES)
    items = processor.info.parse_mm_data({"image": [PICTURE]})
    for most, tokens in ((1, 16), (4, 16 * 5), (12, 16 * 7)):
        kwargs: dict[str, Any] = {"max_num_tiles": most}
        layout = processor.info.family.layout(processor.info, 900, 1300, kwargs)
        whole = processor(
            "<image>", items, hf_processor_mm_kwargs={**kwargs, "vtprune": {"rate": 0.0}}
        )
        (place,) = whole["mm_placeholders"]["image"]
        assert layout.tokens == place.get_num_embeds() == tokens


def test_audio_of_a_video_stands_beside_a_pruned_picture() -> None:
    """vLLM processes such a message beside its cache."""
    processor = pruning_processor(OMNI)
    data = {kind: ITEMS[kind][:1] for kind in ("image", "video", "audio")}
    counts = []
    for rate in (0.0, 0.5):
        kwargs = {"use_audio_in_video": True, "vtprune": {"rate": rate, "video_rate": 0.0}}
        items = processor.info.parse_mm_data(data)
        made = processor("<image>\n<video>\nWhat?", items, hf_processor_mm_kwargs=kwargs)
        counts.append(
            {kind: each[0].get_num_embeds() for kind, each in made["mm_placeholders"].items()}
        )
    whole, pruned = counts
    assert pruned == {**whole, "image": whole["image"] // 2}
    assert {*whole} == {"image", "video", "audio"}


def test_tokens_in_column_order_stop_the_start() -> None:
    info = pruning_processor(TILES).info
    info.get_hf_config().ps_version = "v1"
    try:
        with pytest.raises(ConfigError, match="^ps_version is 'v1'; allowed: 'v2'"):
            info.family.largest(info)
    finally:
        info.get_hf_config().ps_version = "v2"


def test_a_picture_of_any_shape_has_its_size_beside_others_too() -> None:
    """Which stock vLLM makes smaller if together they exceed the context."""
    processor = pruning_processor(OMNI)
    made = processed(processor, {"tokens": 4}, "image", [PICTURE] * 17)["mm_kwargs"]["image"]
    sizes = {tuple(each["imgs_sizes"].data) for each in made}
    rule, shared = processor.info.sizes, DynamicResolutionImageTiler.compute_params
    ((rows, columns),) = {each.patch_size[::-1] for each in shared(rule, [PICTURE], rule.room)}
    assert sizes == {(16 * rows, 16 * columns)}
    fewer = {each.num_embeddings for each in shared(rule, [PICTURE] * 30, rule.room)}
    assert max(fewer) < rows * columns / 4
