"""DeepSeek-OCR by its classes in vLLM, without an engine, beside stock vLLM: rows of a grid of its
crops and one of the whole picture with newlines between, and what of a page is empty. Both have
vLLM's towers, narrower than published (`narrow_towers`)."""

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
from nightly import NIGHTLY
from PIL import Image
from pruned_model import pruned_model, stock_model
from torch.nn.functional import scaled_dot_product_attention as attend
from vllm.exceptions import VLLMValidationError

from vllm_pruner.families.deepseek_ocr import layout_of
from vllm_pruner.layout.fine_then_whole import FineThenWhole
from vllm_pruner.plan import ImagePlan
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.errors import ConfigError

pytestmark = pytest.mark.slow

_DRAWN = np.random.default_rng(0)


def _page(height: int, width: int) -> Image.Image:
    """White, with blocks of noise in the upper left half."""
    pixels = np.full((height, width, 3), 255, np.uint8)
    pixels[height // 8 : height // 2, width // 8 : width // 2] = _DRAWN.integers(
        0, 256, (height // 2 - height // 8, width // 2 - width // 8, 3), np.uint8
    )
    return Image.fromarray(pixels)


PICTURES = [
    Image.fromarray(_DRAWN.integers(0, 256, (90, 140, 3), np.uint8)),
    Image.fromarray(_DRAWN.integers(0, 256, (330, 660, 3), np.uint8)),
    _page(900, 640),
]
TILES = [(1, 1), (2, 1), (2, 3)]
"""Of each picture, columns and rows of crops."""

IMAGES = ["image"] * len(PICTURES)
NEWLINE, SEPARATOR = -1, -2
"""What stands for marks in a run that is numbered."""


@dataclass
class Pair:
    """A model, and what stock vLLM makes of the pictures."""

    stock: Stock
    ours: Side


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    flags = {"dtype": "float32", "enforce_eager": True}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(beside_stock.ITEMS, "image", PICTURES)
        with stock_model("demo-deepseek-ocr", **flags) as (config, model):
            assert type(model).__module__ == "vllm.model_executor.models.deepseek_ocr"
            side = Side(config, model)
            output = side.prompt(IMAGES)
            stock = Stock(output, side.rows(output)[0], None)
        with pruned_model("demo-deepseek-ocr", {}, **flags) as (config, model):
            ours = Side(config, model)
            model.on_selection = lambda _tokens, index, _layout: ours.chosen.extend(index.tolist())
            yield Pair(stock, ours)


def _run(layout: FineThenWhole) -> list[int]:
    """The tokens of an image by their numbers, with its marks between."""
    run, start = [], 0
    for grid in layout.grids:
        for row in range(grid.rows):
            first = start + row * grid.columns
            run += [*range(first, first + grid.columns), NEWLINE]
        start += grid.tokens
    return [*run, SEPARATOR]


def test_rate_0_is_stock_bit_for_bit(pair: Pair) -> None:
    output = pair.ours.prompt(IMAGES, {"rate": 0.0})
    assert output["prompt_token_ids"] == pair.stock.output["prompt_token_ids"]
    found = pair.ours.rows(output)[0]["image"]
    for tiles, rows, whole in zip(TILES, found, pair.stock.rows["image"], strict=True):
        assert torch.equal(rows, whole)
        assert len(rows) == len(_run(layout_of(tiles)))


@pytest.mark.parametrize(
    "settings",
    [
        {"rate": 0.6, "method": "vispruner"},
        {"rate": 0.5, "method": "attention", "crop_budget": "per_crop"},
        {"tokens": 1, "method": "scope"},
        pytest.param({"rate": 1e-12, "method": "random"}, marks=NIGHTLY),
        pytest.param({"rate": 0.7, "floor": "off"}, marks=NIGHTLY),
    ],
    ids=str,
)
def test_kept_rows_are_those_of_stock_and_all_marks_stay_among_them(
    pair: Pair, settings: dict[str, Any]
) -> None:
    output = pair.ours.prompt(IMAGES, settings)
    rows, chosen = pair.ours.rows(output)
    token, model = pair.ours.processor.info.image_token, pair.ours.model
    # `chosen` is in the order of groups, one for each layout, as the pictures come.
    for number, (kept, found) in enumerate(zip(chosen["image"], rows["image"], strict=True)):
        layout, whole = layout_of(TILES[number]), pair.stock.rows["image"][number]
        assert len(kept) == PruneConfig.parse(settings).keep_count(layout.tokens)
        stays = [at for at, each in enumerate(_run(layout)) if each < 0 or each in set(kept)]
        torch.testing.assert_close(found, whole[stays])
        assert torch.equal(found[-1], model.view_seperator)
        newlines = (found == model.image_newline).all(dim=1)
        assert int(newlines.sum()) == layout.breaks
        place = output["mm_placeholders"]["image"][number]
        run = output["prompt_token_ids"][place.offset :][: place.length]
        assert run == [token] * len(found) and place.get_num_embeds() == len(found)
        if "crop_budget" in settings and layout.crops == 2:
            of_fine = sum(each < layout.sizes[0] for each in kept)
            assert of_fine == round(len(kept) * layout.sizes[0] / layout.tokens)


def test_of_a_page_only_what_is_empty_goes_unless_asked_otherwise(pair: Pair) -> None:
    """Of either grid: all tokens that touch the noise stay, the last ones of paper go. The edges of
    the bars beside the whole picture are those of their neighbours above, and show nothing."""
    output = pair.ours.prompt(IMAGES, {"rate": 0.95, "method": "pixels"})
    assert pair.ours.processor.info.prune_config.images.method == "pixels", "the default"
    rows, chosen = pair.ours.rows(output)
    for noise in (0, 1):
        assert len(chosen["image"][noise]) == layout_of(TILES[noise]).tokens
    layout, kept = layout_of(TILES[2]), set(chosen["image"][2])
    (item,) = output["mm_kwargs"]["image"][2:]
    crops, whole = item["images_crop"].data, item["pixel_values"].data.clone()
    whole[..., :149], whole[..., 875:] = 1, 1
    pages = [torch.cat([torch.cat([*row], dim=2) for row in crops.unflatten(0, (3, 2))], dim=1)]
    busy, start = [], 0
    for page, grid in zip([*pages, whole], layout.grids, strict=True):
        squares = page.unflatten(2, (grid.columns, 64)).unflatten(1, (grid.rows, 64))
        reach = squares.amax(dim=(2, 4)) - squares.amin(dim=(2, 4))
        busy += (start + (reach.amax(dim=0) > 0.1).flatten().nonzero().flatten()).tolist()
        start += grid.tokens
    assert 150 < len(busy) < layout.tokens / 2 and set(busy) <= kept
    assert len(busy) <= len(kept) < 0.7 * layout.tokens


def test_importance_is_what_clips_class_token_gives_each_token_of_its_view(pair: Pair) -> None:
    """Beside a literal transcription, view by view; each view's mean is 1."""
    output = pair.ours.prompt(IMAGES, {"rate": 0.5, "method": "attention"})
    model, found = pair.ours.model, []
    fields = batched([output["mm_kwargs"]["image"][1]])
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        look = lambda tokens, _index, _layout: found.append(tokens.importance[0])  # noqa: E731
        patch.setattr(model, "on_selection", look)
        model.embed_multimodal(**fields)
        left, right = (_given(model, crop) for crop in fields["images_crop"])
        whole = _given(model, fields["pixel_values"][0])
    raster = torch.cat([left.view(10, 10), right.view(10, 10)], dim=1)
    torch.testing.assert_close(found[0], torch.cat([raster.flatten(), whole]), rtol=1e-3, atol=1e-5)
    assert float(found[0].std()) > 0.05


def _given(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """What the class token of a view gives each patch in CLIP's last layer, over all heads, divided
    by its mean."""
    clip = model.vision_model
    hidden = clip.pre_layrnorm(clip.embeddings(pixels[None], model.sam_model(pixels[None])))
    *layers, last = clip.transformer.layers
    for layer in layers:
        hidden = layer(hidden)
    query, key, _ = last.self_attn.qkv_proj(last.layer_norm1(hidden))[0].chunk(3, dim=-1)
    query, key = (each[0].unflatten(1, (2, -1)).transpose(0, 1) for each in (query, key))
    eye = torch.eye(key.shape[1]).expand(2, -1, -1)
    scores = attend(query[:, :1], key, eye).mean(dim=0)[0, 1:]
    return scores / scores.mean()


def test_the_text_of_an_image_is_what_is_behind_it(pair: Pair) -> None:
    output = pair.ours.prompt(["image"], {"method": "adafv", "rate": 0.5})
    (item,) = output["mm_kwargs"]["image"]
    (plan,) = ImagePlan.pop_all(batched([item]))
    assert pair.ours.processor.info.get_tokenizer().decode(plan.text).strip() == "So?"


def test_a_person_sees_the_whole_picture_and_its_crops_as_one(pair: Pair) -> None:
    """Left red, right blue: both halves are where they were, the whole between bars."""
    pixels = np.zeros((300, 900, 3), np.uint8)
    pixels[:, :450, 0], pixels[:, 450:, 2] = 255, 255
    info = pair.ours.processor.info
    items = info.parse_mm_data({"image": [Image.fromarray(pixels)]})
    own = {"vtprune": {"rate": 0.5}}
    output = pair.ours.processor("<image> So?", items, hf_processor_mm_kwargs=own)
    whole, fine = info.seen(batched([output["mm_kwargs"]["image"][0]]))
    assert whole.shape == fine.shape == (3, 1024, 1024)
    assert float(whole[:, :330].abs().max()) < 0.01, "a bar is grey"
    for picture in (whole[:, 350:670], fine):
        red, _, blue = picture
        assert float(red[:, :500].min()) > 0.9 > -0.9 > float(red[:, 524:].max())
        assert float(blue[:, 524:].min()) > 0.9 > -0.9 > float(blue[:, :500].max())


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({"crop_mode": False}, "crop_mode of the image processor is False; allowed: True, by"),
        ({"base_size": 1280}, "base_size of the image processor is 1280; allowed: 1024, by"),
        ({"max_crops": 9}, "max_crops of the image processor is 9; allowed: 6, by"),
    ],
    ids=str,
)
@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_a_request_that_would_have_pictures_cut_otherwise_than_counted_is_refused(
    pair: Pair, rate: float, said: dict[str, Any], error: str
) -> None:
    with pytest.raises((ConfigError, VLLMValidationError), match=error):
        pair.ours.prompt(["image"], {"rate": rate}, **said)
