"""Llama 4's tower, whose class token comes last and which makes tokens of patches itself: what
methods read of it, against `transformers`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from graph_rows import drawn
from pruned_model import picture_batch, pruned_model
from transformers import Llama4ForConditionalGeneration
from vllm_process import MODELS

from vllm_pruner.methods.base import Need
from vllm_pruner.plan import ImagePlan
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.tower import FEATURES, Columns

pytestmark = pytest.mark.slow

NEEDS = frozenset({Need.IMPORTANCE, Need.RECEIVED, Need.KEYS, Need.MERGER_NORM})
TILES, SIDE = 3, 8
"""Tiles of the image, and rows of patches in one."""


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    with pruned_model("demo-llama4", {"rate": 0.0}, dtype="float32") as (config, model):
        model.vllm_config_of_test = config
        yield model


@pytest.fixture(scope="module")
def columns(model: Any) -> Columns:
    found: Columns = model.tower.encode(drawn(model, [1, 2]), NEEDS)
    return found


@pytest.fixture(scope="module")
def oracle(model: Any) -> dict[str, torch.Tensor]:
    """The last layer's attention, keys and output, and the tokens, of the same tiles."""
    its = Llama4ForConditionalGeneration.from_pretrained(
        MODELS / "demo-llama4", dtype="float32", attn_implementation="eager"
    ).eval()
    tower: Any = its.vision_model
    seen: dict[str, torch.Tensor] = {}
    attention: Any = tower.model.layers[-1].self_attn
    attention.register_forward_hook(lambda _, args, output: seen.update(attention=output[1]))
    tower.layernorm_post.register_forward_pre_hook(lambda _, args: seen.update(last=args[0]))
    with torch.no_grad():
        pixels = torch.cat([image.pixels for image in drawn(model, [1, 2])])
        seen["tokens"] = tower(pixels).last_hidden_state
        seen["projected"] = its.multi_modal_projector(seen["tokens"])
    return seen


def _sums(patches: torch.Tensor) -> torch.Tensor:
    """Of each square of patches, tile by tile."""
    grid = patches.view(TILES, SIDE // 2, 2, SIDE // 2, 2)
    return grid.sum(dim=(2, 4)).flatten()


def test_importance_is_the_class_token_s_attention_to_the_patches_of_a_token(
    columns: Columns, oracle: dict[str, torch.Tensor]
) -> None:
    of_class = oracle["attention"][:, :, -1, :-1].mean(dim=1)
    expected = _sums(of_class)
    torch.testing.assert_close(columns["importance"], expected, rtol=1e-4, atol=1e-7)
    assert float(expected.max() / expected.min()) > 3, "a wrong order would be seen"


def test_what_is_received_and_norms_are_of_the_patches_too(
    columns: Columns, oracle: dict[str, torch.Tensor]
) -> None:
    received = oracle["attention"].mean(dim=(1, 2))[:, :-1]
    torch.testing.assert_close(columns["received"], _sums(received), rtol=1e-4, atol=1e-7)
    norms = oracle["last"][:, :-1].norm(dim=-1)
    torch.testing.assert_close(columns["merger_norm"], _sums(norms), rtol=1e-4, atol=1e-4)


def test_a_key_is_the_mean_of_its_patches_keys(model: Any, columns: Columns) -> None:
    seen: list[torch.Tensor] = []
    attention = model.vision_model.model.layers[-1].self_attn.attn
    hook = attention.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    model.tower.encode(drawn(model, [1, 2]), frozenset())
    hook.remove()
    keys = seen[0][:, :-1].unflatten(2, (attention.num_heads, -1)).mean(dim=2)
    expected = torch.stack([_sums(each) / 4 for each in keys.unbind(dim=2)], dim=1)
    torch.testing.assert_close(columns["keys"], expected, rtol=1e-4, atol=1e-5)


def test_features_are_the_tower_s_tokens_and_only_these_are_projected(
    model: Any, columns: Columns, oracle: dict[str, torch.Tensor]
) -> None:
    features, tokens = columns[FEATURES], oracle["tokens"].flatten(0, 1)
    torch.testing.assert_close(features, tokens, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        rows = model.tower.project(features[5:9])
    torch.testing.assert_close(rows, oracle["projected"].flatten(0, 1)[5:9], rtol=1e-4, atol=1e-4)
    assert features.shape[1] == model.tower.columns(NEEDS)[FEATURES][0]


@torch.no_grad()
def test_pictures_have_the_rows_that_stock_vllm_makes_of_them(model: Any) -> None:
    """Of a grid with padding, and of one tile."""
    fields = picture_batch(model.vllm_config_of_test, [(150, 260), (60, 112)], (0,), {})
    images = model.family.images(model.config, model._parse_and_validate_image_input(**fields))
    assert [image.layout.crops for image in images] == [7, 1]
    features = model.tower.encode(images, frozenset())[FEATURES]
    expected = torch.cat(model.embed_unpruned(**fields))
    assert len(expected) == sum(image.layout.tokens for image in images)
    torch.testing.assert_close(model.tower.project(features), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("keep", [30, 90])
def test_kept_rows_are_those_of_stock_vllm_in_their_places(model: Any, keep: int) -> None:
    """Of a grid with padding, of which some is kept beside all of the picture in the second case:
    seven tiles of 16 tokens, of which 76 show it."""
    fields = picture_batch(model.vllm_config_of_test, [(150, 260)], (0,), {})
    stock = model.embed_unpruned(**fields)[0]
    seen: list[list[int]] = []
    model.on_selection = lambda tokens, index, layout: seen.append(index[0].tolist())
    plan = ImagePlan(PruneConfig(method="scope", tokens=keep), "padded", keep=keep)
    (rows,) = model.embed_planned([plan], **fields)
    model.on_selection = None
    (kept,) = seen
    (image,) = model.family.images(model.config, model._parse_and_validate_image_input(**fields))
    of_tiles = torch.tensor(kept).div(16, rounding_mode="floor").bincount(minlength=7)
    assert of_tiles.tolist() == image.layout.shares(keep) and len(kept) == keep
    showing = set(torch.cat(image.layout.patches_of_crops(torch.device("cpu"))).tolist())
    assert len(showing) == 76 and len(showing & {*kept}) == min(keep, 76)
    torch.testing.assert_close(rows, stock[kept], rtol=1e-4, atol=1e-4)
