"""Keye-VL and 1.5 by their classes in vLLM, without an engine, beside stock vLLM: rows and
positions of pictures, beside videos that stay whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import beside_stock
import numpy as np
import pytest
import torch
from beside_stock import Side, Stock
from contract import batched
from pruned_model import pruned_model, stock_model
from vllm.exceptions import VLLMValidationError

from vllm_pruner.layout.positions import split
from vllm_pruner.plan import ImagePlan
from vllm_pruner.settings.config import PruneConfig

pytestmark = pytest.mark.slow

CHECKPOINTS = ["demo-keye", "demo-keye1.5"]
CLIP = np.random.default_rng(1).integers(0, 256, (3, 112, 84, 3), np.uint8)
PICTURES = ["image", "image"]
FILM = ["image", "video", "image"]


@dataclass
class Pair:
    """A model, and what stock vLLM makes of pictures, and of a video between them."""

    stock: Stock
    film: Stock
    ours: Side


@pytest.fixture(scope="module", params=CHECKPOINTS)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    flags = {"dtype": "float32", "enforce_eager": True, "trust_remote_code": True}
    patch = pytest.MonkeyPatch()
    patch.setitem(beside_stock.ITEMS, "video", [CLIP])
    with stock_model(request.param, **flags) as (config, model):
        assert config.model_config.uses_mrope
        side = Side(config, model)
        stock, film = (_made(side, kinds) for kinds in (PICTURES, FILM))
    with pruned_model(request.param, {}, **flags) as (config, model):
        ours = Side(config, model)
        model.on_selection = lambda _tokens, index, _layout: ours.chosen.extend(index.tolist())
        yield Pair(stock, film, ours)
    patch.undo()


def _made(side: Side, kinds: list[str]) -> Stock:
    output = side.prompt(kinds)
    return Stock(output, side.rows(output)[0], side.positions(output))


@pytest.mark.parametrize("kinds", [PICTURES, FILM], ids=["pictures", "film"])
def test_rate_0_is_stock_bit_for_bit(pair: Pair, kinds: list[str]) -> None:
    stock = pair.film if "video" in kinds else pair.stock
    output = pair.ours.prompt(kinds, {"rate": 0.0})
    assert output["prompt_token_ids"] == stock.output["prompt_token_ids"]
    rows, _ = pair.ours.rows(output)
    for kind, found in rows.items():
        for one, whole in zip(found, stock.rows[kind], strict=True):
            assert torch.equal(split(one)[0], whole)
    positions, delta = pair.ours.positions(output, rows)
    assert torch.equal(positions, stock.positions[0]) and delta == stock.positions[1]


@pytest.mark.parametrize(
    "settings",
    [
        *({"rate": 1e-12}, {"rate": 0.5}, {"tokens": 7, "method": "scope"}, {"method": "adafv"}),
        {"tokens": 40, "method": "pixels", "floor": "off"},
    ],
    ids=str,
)
@pytest.mark.parametrize("kinds", [PICTURES, FILM], ids=["pictures", "film"])
def test_kept_rows_are_those_of_stock_and_stand_where_they_stood(
    pair: Pair, kinds: list[str], settings: dict[str, Any]
) -> None:
    stock = pair.film if "video" in kinds else pair.stock
    output = pair.ours.prompt(kinds, {**settings, "video_rate": 0.0})
    rows, chosen = pair.ours.rows(output)
    at = stock.at(output, chosen)
    early = settings.get("method") == "pixels"
    for one, whole, index in zip(rows["image"], stock.rows["image"], chosen["image"], strict=True):
        assert index == sorted({*index})
        close = torch.allclose(split(one)[0], whole[index], rtol=1e-4, atol=1e-4)
        assert close != early, "what is encoded alone never saw the others"
    for one, whole in zip(rows.get("video", ()), stock.rows.get("video", ()), strict=True):
        assert torch.equal(split(one)[0], whole)
    for step in (4096, 37, 7):
        positions, delta = pair.ours.positions(output, rows, step)
        assert torch.equal(positions, stock.positions[0][:, at])
    assert delta + positions.shape[1] == stock.positions[1] + stock.positions[0].shape[1]


def test_importance_is_what_the_patches_of_a_token_receive_in_the_last_layer(pair: Pair) -> None:
    """Beside a literal transcription, of a picture alone, its patches in raster order."""
    output = pair.ours.prompt(PICTURES, {"rate": 0.5, "method": "attention"})
    model, found = pair.ours.model, []
    fields = batched([output["mm_kwargs"]["image"][0]])
    ((_, rows, columns),) = fields["image_grid_thw"].tolist()
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        look = lambda tokens, _index, _layout: found.append(tokens.importance[0])  # noqa: E731
        patch.setattr(model, "on_selection", look)
        model.embed_multimodal(**fields)
        calls: list[Any] = []
        attention = model.visual.vision_model.encoder.layers[-1].self_attn.attn
        hook = attention.register_forward_pre_hook(
            lambda _layer, _args, kwargs: calls.append(kwargs), with_kwargs=True
        )
        stock: Any = super(type(model).__mro__[1], model)
        stock.embed_unpruned(**{k: v for k, v in fields.items() if not k.startswith("vtprune")})
        hook.remove()
    query, key = (calls[0][name][0].transpose(0, 1) for name in ("query", "key"))
    weights = (query @ key.transpose(1, 2) / query.shape[2] ** 0.5).softmax(dim=-1)
    received = weights.mean(dim=(0, 1)).view(rows // 2, 2, columns // 2, 2).sum(dim=(1, 3))
    ratio = found[0] / received.flatten()
    assert float(ratio.std() / ratio.mean()) < 1e-4 and float(received.std()) > 0


def test_the_text_of_an_image_is_the_question_without_marks(pair: Pair) -> None:
    output = pair.ours.prompt(PICTURES, {"method": "adafv"})
    tokenizer = pair.ours.processor.info.get_tokenizer()
    plans = [ImagePlan.pop_all(batched([item]))[0] for item in output["mm_kwargs"]["image"]]
    assert [tokenizer.decode(plan.text) for plan in plans] == ["So?So?", "So?"]


def test_a_video_is_refused_until_it_may_stay_whole(pair: Pair) -> None:
    with pytest.raises(VLLMValidationError, match="cannot be pruned; allowed: video_rate 0"):
        pair.ours.prompt(FILM, {"rate": 0.5})


@pytest.mark.parametrize("limits", [{"max_pixels": 40 * 28**2}, {"min_pixels": 200 * 28**2}])
def test_a_request_says_how_large_its_pictures_are(pair: Pair, limits: dict[str, int]) -> None:
    info = pair.ours.processor.info
    output = pair.ours.prompt(PICTURES, {"rate": 0.5}, **limits)
    for number, place in enumerate(output["mm_placeholders"]["image"]):
        size = beside_stock.PICTURES[number].size
        layout = info.family.layout(info, *size[::-1], limits)
        assert place.get_num_embeds() == PruneConfig(rate=0.5).keep_count(layout.tokens)
        assert layout != info.family.layout(info, *size[::-1], {})
