"""Molmo2 by its classes in vLLM, without an engine, beside stock vLLM: rows of two grids with marks
between, of pictures of any shape."""

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
from PIL import Image
from pruned_model import pruned_model, stock_model
from vllm.exceptions import VLLMValidationError

from vllm_pruner.layout.two_grids import TwoGrids
from vllm_pruner.plan import ImagePlan
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.errors import ConfigError

pytestmark = pytest.mark.slow

_NOISE = np.random.default_rng(0)
PICTURES = [
    Image.fromarray(_NOISE.integers(0, 256, (*size, 3), np.uint8))
    for size in ((100, 100), (112, 340), (300, 80), (400, 500))
]
_FACTS = {"fps": 2.0, "total_num_frames": 3, "duration": 1.5, "do_sample_frames": False}
CLIP = (_NOISE.integers(0, 256, (3, 90, 60, 3), np.uint8), _FACTS | {"frames_indices": [0, 1, 2]})
GRIDS = [((5, 5), (5, 5)), ((5, 5), (5, 15)), ((5, 5), (12, 5)), ((5, 5), (7, 10))]
"""Of each picture, of tokens of 2 x 2 patches, of crops that share four patches."""


@dataclass
class Pair:
    """A model, and what stock vLLM makes of the pictures."""

    stock: Stock
    film: Stock
    ours: Side


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    flags = {"dtype": "float32", "enforce_eager": True, "trust_remote_code": True}
    patch = pytest.MonkeyPatch()
    patch.setitem(beside_stock.ITEMS, "image", PICTURES)
    patch.setitem(beside_stock.ITEMS, "video", [CLIP])
    with stock_model("demo-molmo2", **flags) as (config, model):
        side = Side(config, model)
        stock, film = (_made(side, kinds) for kinds in (["image"] * 4, ["image", "video", "image"]))
    with pruned_model("demo-molmo2", {}, **flags) as (config, model):
        ours = Side(config, model)
        model.on_selection = lambda _tokens, index, _layout: ours.chosen.extend(index.tolist())
        yield Pair(stock, film, ours)
    patch.undo()


def _made(side: Side, kinds: list[str]) -> Stock:
    output = side.prompt(kinds)
    return Stock(output, side.rows(output)[0], None)


def _layout(number: int) -> TwoGrids:
    return TwoGrids(*GRIDS[number], (False, True))


def _stock_ids(pair: Pair, number: int) -> torch.Tensor:
    """What stands in stock vLLM's prompt for a picture."""
    place = pair.stock.output["mm_placeholders"]["image"][number]
    return torch.tensor(pair.stock.output["prompt_token_ids"][place.offset :][: place.length])


def test_rate_0_is_stock_bit_for_bit(pair: Pair) -> None:
    output = pair.ours.prompt(["image"] * 4, {"rate": 0.0})
    assert output["prompt_token_ids"] == pair.stock.output["prompt_token_ids"]
    found = pair.ours.rows(output)[0]["image"]
    for number, (rows, whole) in enumerate(zip(found, pair.stock.rows["image"], strict=True)):
        assert torch.equal(rows, whole)
        assert len(rows) == _layout(number).tokens + len(_layout(number).marks())


@pytest.mark.parametrize(
    "settings",
    [
        *({"rate": 1e-12}, {"rate": 0.6}, {"tokens": 7, "method": "scope"}, {"method": "adafv"}),
        {"tokens": 1},
        {"rate": 0.5, "crop_budget": "per_crop"},
    ],
    ids=str,
)
def test_kept_rows_are_those_of_stock_and_all_marks_stay_among_them(
    pair: Pair, settings: dict[str, Any]
) -> None:
    """All pictures in one batch, whose crops are encoded together."""
    output = pair.ours.prompt(["image"] * 4, settings)
    found = pair.ours.rows(output)[0]["image"]
    patch = pair.ours.processor.info.image_token
    for number, (item, rows, whole) in enumerate(
        zip(output["mm_kwargs"]["image"], found, pair.stock.rows["image"], strict=True)
    ):
        pair.ours.chosen.clear()
        with torch.inference_mode():
            (alone,) = pair.ours.model.embed_multimodal(**batched([item]))
        (kept,) = pair.ours.chosen
        torch.testing.assert_close(alone, rows)
        ids = _stock_ids(pair, number)
        stays = ids != patch
        assert int(stays.sum()) == len(_layout(number).marks())
        stays[(ids == patch).nonzero().flatten()[torch.tensor(kept)]] = True
        torch.testing.assert_close(rows, whole[stays])
        place = output["mm_placeholders"]["image"][number]
        run = output["prompt_token_ids"][place.offset :][: place.length]
        assert run == [patch] * len(rows) and place.get_num_embeds() == len(rows)
        if "crop_budget" in settings:
            first = 25 * len(kept) // _layout(number).tokens
            assert sum(each < 25 for each in kept) == first


def test_importance_is_what_the_patches_of_a_token_receive_in_their_crop(pair: Pair) -> None:
    """Beside a literal transcription, crop by crop, of a picture of several."""
    output = pair.ours.prompt(["image"] * 4, {"rate": 0.5, "method": "attention"})
    model, found = pair.ours.model, []
    fields = batched([output["mm_kwargs"]["image"][3]])
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        look = lambda tokens, _index, _layout: found.append(tokens.importance[0])  # noqa: E731
        patch.setattr(model, "on_selection", look)
        model.embed_multimodal(**fields)
        received = torch.stack([_received(model, crop) for crop in fields["pixel_values"]])
    expected = [
        sum(float(received.flatten()[patch]) for patch in token if patch >= 0)
        for token in fields["image_token_pooling"].tolist()
    ]
    scores = torch.tensor(expected)
    ratio = found[0] / scores
    assert float(ratio.std() / ratio.mean()) < 1e-4 and float(scores.std()) > 0


def _received(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """What each patch of a crop receives in the last layer that is run, over all heads."""
    vit = model.vision_backbone.image_vit
    hidden = vit.patch_embedding(pixels[None]) + vit.positional_embedding
    *layers, last = vit.transformer.resblocks
    assert len(layers) == 3, "the tower ends at the last layer that is pooled"
    for layer in layers:
        hidden = layer(hidden)
    query, key, _ = last.attention.merged_qkv(last.attention_norm(hidden))[0].chunk(3, dim=-1)
    query, key = (each[0].unflatten(1, (2, -1)).transpose(0, 1) for each in (query, key))
    weights = (query @ key.transpose(1, 2) / query.shape[2] ** 0.5).softmax(dim=-1)
    return weights.mean(dim=(0, 1))


def test_the_text_of_an_image_is_the_question(pair: Pair) -> None:
    output = pair.ours.prompt(["image"] * 4, {"method": "adafv"})
    tokenizer = pair.ours.processor.info.get_tokenizer()
    for item in output["mm_kwargs"]["image"]:
        (plan,) = ImagePlan.pop_all(batched([item]))
        assert set(tokenizer.decode(plan.text).split()) == {"So?"}


def test_a_person_sees_the_picture_as_either_grid_has_it(pair: Pair) -> None:
    """Left red, right blue: both halves are where they were, whatever crops they are of."""
    pixels = np.zeros((300, 420, 3), np.uint8)
    pixels[:, :210, 0], pixels[:, 210:, 2] = 255, 255
    info = pair.ours.processor.info
    items = info.parse_mm_data({"image": [Image.fromarray(pixels)]})
    own = {"vtprune": {"rate": 0.5}}
    output = pair.ours.processor("<|image|> So?", items, hf_processor_mm_kwargs=own)
    whole, fine = info.seen(batched([output["mm_kwargs"]["image"][0]]))
    assert whole.shape == fine.shape == (3, 126, 126)
    for picture in (whole, fine):
        red, _, blue = picture
        assert float(red[:, :60].min()) > 0.9 > -0.9 > float(red[:, 66:].max())
        assert float(blue[:, 66:].min()) > 0.9 > -0.9 > float(blue[:, :60].max())


def test_a_video_stays_whole_beside_pruned_pictures_or_is_refused(pair: Pair) -> None:
    kinds = ["image", "video", "image"]
    with pytest.raises(VLLMValidationError, match="cannot be pruned; allowed: video_rate 0"):
        pair.ours.prompt(kinds, {"rate": 0.5})
    output = pair.ours.prompt(kinds, {"rate": 0.5, "video_rate": 0.0})
    rows, _ = pair.ours.rows(output)
    (found,), (whole,) = rows["video"], pair.film.rows["video"]
    assert torch.equal(found, whole)
    half = PruneConfig(rate=0.5)
    for number, kept in enumerate(rows["image"]):
        layout = _layout(number)
        assert len(kept) == half.keep_count(layout.tokens) + len(layout.marks())


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_a_request_that_would_have_pictures_cut_otherwise_than_counted_is_refused(
    pair: Pair, rate: float
) -> None:
    """Stock vLLM counts by the checkpoint's number, and fails at another one."""
    with pytest.raises((ConfigError, VLLMValidationError), match="max_crops .* 4; allowed: 8, by"):
        pair.ours.prompt(["image"], {"rate": rate}, max_crops=4)
    with pytest.raises((ConfigError, VLLMValidationError), match="max_crops .* 4; allowed: 8, by"):
        pair.ours.prompt(["image"], {"rate": rate}, images_kwargs={"max_crops": 4})
    assert pair.ours.prompt(["image"], {"rate": rate}, max_crops=8)
