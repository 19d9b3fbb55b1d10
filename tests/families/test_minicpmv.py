"""MiniCPM-V with a resampler by its classes in vLLM, without an engine, beside stock vLLM: the
queries of the whole picture and of the slices of pictures of any shape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import beside_stock
import numpy as np
import pytest
import torch
import vllm
from beside_stock import Side, Stock
from contract import batched
from model_on_card import as_sent
from nightly import NIGHTLY
from PIL import Image
from pruned_model import pruned_model, stock_model
from pruning_processor import pruning_processor
from vllm.exceptions import VLLMValidationError
from vtprune_server.explain import items_of

from vllm_pruner import compat
from vllm_pruner.layout.shares import shares
from vllm_pruner.plan import ImagePlan
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.worker.explain import explain

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not compat.at_least((0, 32)), reason="untried with vLLM 0.31"),
]

CHECKPOINTS = [
    "demo-minicpmv2.6",
    "demo-minicpmv4.5",
    pytest.param("demo-minicpmv4.0", marks=NIGHTLY),  # as 2.6, before another decoder
]
_NOISE = np.random.default_rng(0)
PICTURES = [
    Image.fromarray(_NOISE.integers(0, 256, (*size, 3), np.uint8))
    for size in ((100, 100), (112, 340), (300, 80), (400, 500))
]
CLIP = _NOISE.integers(0, 256, (3, 112, 336, 3), np.uint8)
QUERIES = 16
SLICES = [1, 4, 4, 10]
"""Of each picture, the whole one among them."""


@dataclass
class Pair:
    """A model, and what stock vLLM makes of the pictures."""

    stock: Stock
    film: Stock
    ours: Side


@pytest.fixture(scope="module", params=CHECKPOINTS)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    flags = {"dtype": "float32", "enforce_eager": True, "trust_remote_code": True}
    patch = pytest.MonkeyPatch()
    patch.setitem(beside_stock.ITEMS, "image", PICTURES)
    patch.setitem(beside_stock.ITEMS, "video", [CLIP])
    with stock_model(request.param, **flags) as (config, model):
        side = Side(config, model)
        stock, film = (_made(side, kinds) for kinds in (["image"] * 4, ["image", "video", "image"]))
    with pruned_model(request.param, {}, **flags) as (config, model):
        ours = Side(config, model)
        model.on_selection = lambda _tokens, index, _layout: ours.chosen.extend(index.tolist())
        yield Pair(stock, film, ours)
    patch.undo()


def _made(side: Side, kinds: list[str]) -> Stock:
    output = side.prompt(kinds)
    return Stock(output, side.rows(output)[0], None)


def test_rate_0_is_stock_bit_for_bit(pair: Pair) -> None:
    output = pair.ours.prompt(["image"] * 4, {"rate": 0.0})
    assert output["prompt_token_ids"] == pair.stock.output["prompt_token_ids"]
    found = pair.ours.rows(output)[0]["image"]
    assert [len(each) for each in found] == [QUERIES * number for number in SLICES]
    for rows, whole in zip(found, pair.stock.rows["image"], strict=True):
        assert torch.equal(rows, whole)


@pytest.mark.parametrize(
    "settings",
    [{"rate": 1e-12}, {"rate": 0.6}, {"tokens": 7, "method": "scope"}, {"method": "adafv"}],
    ids=str,
)
def test_kept_rows_are_those_of_stock_each_slice_with_its_share(
    pair: Pair, settings: dict[str, Any]
) -> None:
    """All pictures in one batch, in which slices of one size are encoded together and stock vLLM
    pads and masks them, so up to rounding."""
    output = pair.ours.prompt(["image"] * 4, settings)
    found, chosen = pair.ours.rows(output)[0]["image"], []
    for item, rows, whole in zip(
        output["mm_kwargs"]["image"], found, pair.stock.rows["image"], strict=True
    ):
        pair.ours.chosen.clear()
        with torch.inference_mode():
            (alone,) = pair.ours.model.embed_multimodal(**batched([item]))
        (kept,) = pair.ours.chosen
        chosen.append(kept)
        torch.testing.assert_close(alone, rows)
        torch.testing.assert_close(rows, whole[kept])
        sizes = [QUERIES] * (len(whole) // QUERIES)
        of_slices = np.bincount(np.array(kept) // QUERIES, minlength=len(sizes))
        assert of_slices.tolist() == shares(sizes, len(kept))
    assert pair.stock.at(output, {"image": chosen})


def test_importance_is_what_a_query_sees_of_the_attention_that_patches_receive(pair: Pair) -> None:
    """Beside a literal transcription, slice by slice; the pixels are of another kind in each."""
    output = pair.ours.prompt(["image"] * 4, {"rate": 0.5, "method": "attention"})
    model, found = pair.ours.model, []
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        look = lambda tokens, _index, _layout: found.append(tokens.importance[0])  # noqa: E731
        patch.setattr(model, "on_selection", look)
        for item in output["mm_kwargs"]["image"][1:3]:
            fields = batched([item])
            model.embed_multimodal(**fields)
            (slices,), (sizes,) = fields["pixel_values"], fields["tgt_sizes"]
            expected = [
                _importance(model, pixels, size)
                for pixels, size in zip(slices, sizes.tolist(), strict=True)
            ]
            on_one_scale = torch.cat([scores / scores.mean() for scores in expected])
            torch.testing.assert_close(found.pop(), on_one_scale, rtol=1e-4, atol=1e-5)
            assert float(on_one_scale.std()) > 0.02, "queries differ"


def _importance(model: Any, pixels: torch.Tensor, size: list[int]) -> torch.Tensor:
    """Of the queries of one slice."""
    tower, resampler = model.vpm, model.resampler
    mask, sizes = torch.ones(1, 1, size[0] * size[1], dtype=torch.bool), torch.tensor([size])
    hidden = tower.embeddings(pixels[None], mask, sizes)
    *layers, last = tower.encoder.layers
    for layer in layers:
        hidden = layer(hidden)
    query, key, _ = last.self_attn.qkv_proj(last.layer_norm1(hidden))[0].chunk(3, dim=-1)
    received = _softmaxed(query[0], key[0], last.self_attn.num_heads).mean(dim=(0, 1))
    patches = tower.post_layernorm(last(hidden))
    keys = resampler.ln_kv(resampler.kv_proj(patches)[0])[0]
    keys = keys + resampler.pos_embed[: size[0], : size[1]].reshape(len(keys), -1)
    matrices, biases = (
        each.chunk(3) for each in (resampler.attn.in_proj_weight, resampler.attn.in_proj_bias)
    )
    query = resampler.ln_q(resampler.query) @ matrices[0].T + biases[0]
    looks = _softmaxed(query, keys @ matrices[1].T + biases[1], resampler.num_heads).mean(dim=0)
    return torch.stack([(row * received).sum() for row in looks])


def _softmaxed(query: torch.Tensor, key: torch.Tensor, heads: int) -> torch.Tensor:
    """Attention `[heads, queries, keys]`."""
    query, key = (each.unflatten(1, (heads, -1)).transpose(0, 1) for each in (query, key))
    return (query @ key.transpose(1, 2) / query.shape[2] ** 0.5).softmax(dim=-1)


def test_the_text_of_an_image_is_the_question_without_what_stands_for_images(pair: Pair) -> None:
    output = pair.ours.prompt(["image"] * 4, {"method": "adafv"})
    tokenizer = pair.ours.processor.info.get_tokenizer()
    for item in output["mm_kwargs"]["image"]:
        (plan,) = ImagePlan.pop_all(batched([item]))
        assert set(tokenizer.decode(plan.text).split()) == {"So?"}


def test_an_explanation_has_scores_of_queries_and_no_place_to_draw_them(pair: Pair) -> None:
    output = pair.ours.prompt(["image"] * 2, {"rate": 0.5})
    sent = items_of(output)[1]
    assert {"pixel_values", "tgt_sizes"} <= set(sent)
    (found,) = explain(pair.ours.model, [as_sent(output["mm_kwargs"]["image"][1])])
    assert found["original"] == QUERIES * SLICES[1] == 2 * len(found["kept"])
    assert found["fault"] is None and len(found["views"]) == SLICES[1]
    for number, view in enumerate(found["views"]):
        assert not view["is_drawn"] and view["crop"] == number and view["rows"] == (0, 1)
        assert len(view["kept"]) == len(view["importance"]) / 2 == QUERIES / 2


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


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_a_request_that_would_have_pictures_cut_otherwise_than_counted_is_refused(
    pair: Pair, rate: float
) -> None:
    """Stock vLLM counts by the server's number, and its engine ends at another one."""
    with pytest.raises((ConfigError, VLLMValidationError), match="max_slice_nums .* 4; allowed: 9"):
        pair.ours.prompt(["image"], {"rate": rate}, max_slice_nums=4)
    assert pair.ours.prompt(["image"], {"rate": rate}, max_slice_nums=9)


@pytest.mark.parametrize(("most", "crops"), [(1, 1), (4, 5), (12, 13)])
def test_the_server_says_how_many_slices_there_may_be(most: int, crops: int) -> None:
    info = pruning_processor("demo-minicpmv4.5", kwargs={"max_slice_nums": most}).info
    assert info.family.largest(info).crops == crops
    sizes = [(300, 80), (112 * most, 112), (400, 500), (2000, 1500)]
    assert max(info.family.layout(info, *size, {}).crops for size in sizes) == crops


def test_what_cannot_be_served_is_refused_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    info = pruning_processor("demo-minicpmv4.5").info
    config, largest = info.get_hf_config(), info.family.largest
    monkeypatch.setattr(config, "version", 2.5)
    with pytest.raises(ConfigError, match=r"MiniCPMV is 2\.5; allowed: 2\.6, 4\.0, 4\.5$"):
        largest(info)
    monkeypatch.setattr(config, "version", 4.5)
    monkeypatch.setattr(config, "query_num", 64)
    with pytest.raises(ConfigError, match="image_feature_size .* is 16; allowed: 64, the model's"):
        largest(info)
    monkeypatch.setattr(vllm, "__version__", "0.31.0")
    with pytest.raises(ConfigError, match=r"^architecture is MiniCPMV; allowed: vLLM 0\.32 or new"):
        largest(info)
    with pytest.raises(ConfigError, match="merger_norm.*, but minicpmv merges no patches"):
        info.family.check(config, PruneConfig(importance="merger_norm"))
