"""LFM2-VL by its classes in vLLM, without an engine, beside stock vLLM: tiles and the whole picture
of pictures of any shape, as a request would have them cut, and attention where all are packed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import beside_stock
import numpy as np
import pytest
import torch
from beside_stock import Rows, Side
from contract import batched, processed
from PIL import Image
from pruned_model import pruned_model, stock_model
from pruning_processor import pruning_processor

from vllm_pruner.compat.versions import at_least
from vllm_pruner.families.lfm2_tiles import images, largest, layout
from vllm_pruner.layout.shares import shares
from vllm_pruner.methods.base import Need
from vllm_pruner.settings.errors import ConfigError

pytestmark = pytest.mark.slow

CHECKPOINT = "demo-lfm2"
_NOISE = np.random.default_rng(0)
PICTURES = [
    Image.fromarray(_NOISE.integers(0, 256, (*size, 3), np.uint8))
    for size in ((224, 336), (420, 120), (100, 100), (20, 400), (700, 900))
]
REQUESTS: dict[str, dict[str, Any]] = {
    "as they are": {},
    "fewer tiles": {"max_tiles": 4},
    "no tiles": {"min_tiles": 1, "max_tiles": 1},
    "one tile": {"min_tiles": 1, "max_pixels_tolerance": 0.5, "max_tiles": 2},
    "larger, with larger tiles": {"max_image_tokens": 64, "tile_size": 192},
    "of images alone": {"images_kwargs": {"do_convert_rgb": True}, "min_image_tokens": 4},
}
"""Arguments of a request for HF's processor."""


@dataclass
class Pair:
    """A model, and what stock vLLM makes of the pictures by each request: the prompt, and rows."""

    stock: dict[str, tuple[Any, Rows]]
    ours: Side

    def prompt(self, name: str, settings: dict[str, Any]) -> Any:
        return self.ours.prompt(["image"] * len(PICTURES), settings, **REQUESTS[name])


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    if not at_least((0, 32)):
        pytest.skip("0.31 builds convolutions of four tokens alone on a CPU")
    flags = {"dtype": "float32", "enforce_eager": True}
    patch = pytest.MonkeyPatch()
    patch.setitem(beside_stock.ITEMS, "image", PICTURES)
    with stock_model(CHECKPOINT, **flags) as made:
        side = Side(*made)
        outputs = {
            name: side.prompt(["image"] * len(PICTURES), **asked)
            for name, asked in REQUESTS.items()
        }
        stock = {name: (output, side.rows(output)[0]) for name, output in outputs.items()}
    with pruned_model(CHECKPOINT, {}, **flags) as (config, model):
        ours = Side(config, model)
        model.on_selection = lambda _tokens, index, _layout: ours.chosen.extend(index.tolist())
        yield Pair(stock, ours)
    patch.undo()


@pytest.mark.parametrize("name", REQUESTS)
def test_rate_0_is_stock_bit_for_bit(pair: Pair, name: str) -> None:
    output, rows = pair.stock[name]
    ours = pair.prompt(name, {"rate": 0.0})
    assert ours["prompt_token_ids"] == output["prompt_token_ids"]
    for found, whole in zip(pair.ours.rows(ours)[0]["image"], rows["image"], strict=True):
        assert torch.equal(found, whole)


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize(
    "settings",
    [{"rate": 1e-12}, {"rate": 0.6}, {"tokens": 2, "method": "scope", "importance": "merger_norm"}],
    ids=str,
)
def test_kept_rows_are_those_of_stock_each_tile_with_its_share(
    pair: Pair, name: str, settings: dict[str, Any]
) -> None:
    """All pictures packed into one sequence, and each alone."""
    _, stock = pair.stock[name]
    items = pair.prompt(name, settings)["mm_kwargs"]["image"]
    hf_config = pair.ours.model.config
    together = pair.ours.rows({"mm_kwargs": {"image": items}})[0]["image"]
    for item, rows, whole in zip(items, together, stock["image"], strict=True):
        pair.ours.chosen.clear()
        with torch.inference_mode():
            (alone,) = pair.ours.model.embed_multimodal(**batched([item]))
        (kept,) = pair.ours.chosen
        torch.testing.assert_close(alone, rows)
        torch.testing.assert_close(rows, whole[kept])
        ((image),) = images(hf_config, batched([item]))
        sizes = [len(crop) for crop in image.layout.patches_of_crops(torch.device("cpu"))]
        crops = np.searchsorted(np.cumsum(sizes), kept, side="right")
        assert np.bincount(crops, minlength=len(sizes)).tolist() == shares(sizes, len(kept))


def test_a_token_has_the_attention_of_its_patches_within_its_own_tile(pair: Pair) -> None:
    """Of the last layer: neither padding nor what is packed beside it counts."""
    items = pair.prompt("as they are", {"rate": 0.5})["mm_kwargs"]["image"]
    model, found = pair.ours.model, []
    attention = model.vision_tower.vision_model.encoder.layers[-1].self_attn.attn
    hook = attention.register_forward_pre_hook(
        lambda _, args, kwargs: found.extend((kwargs["query"][0], kwargs["key"][0])),
        with_kwargs=True,
    )
    encoded = images(model.config, batched(items))
    columns = model.tower.encode(encoded, frozenset({Need.IMPORTANCE}))
    hook.remove()
    query, key = found
    expected, start = [], 0
    for rows, across in batched(items)["spatial_shapes"].tolist():
        here = slice(start, start := start + rows * across)
        logits = torch.einsum("qhd,khd->hqk", query[here], key[here]) * attention.scale
        received = logits.softmax(dim=-1).mean(dim=(0, 1)).view(rows // 2, 2, across // 2, 2)
        expected.append(received.sum(dim=(1, 3)).flatten())
    assert start == len(query)
    torch.testing.assert_close(columns[str(Need.IMPORTANCE)], torch.cat(expected))


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"do_image_splitting": False}, "do_image_splitting of the image processor is False"),
        ({"use_thumbnail": False}, "use_thumbnail of the image processor is False; allowed: True"),
        ({"downsample_factor": 4}, "downsample_factor of the image processor is 4; allowed: 2"),
        ({"images_kwargs": {"max_tiles": 4}}, "max_tiles of the image processor is 4; allowed: 10"),
    ],
    ids=str,
)
@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_what_vllm_would_count_otherwise_than_it_is_cut_is_refused(
    pair: Pair, asked: dict[str, Any], sentence: str, rate: float
) -> None:
    """Stock vLLM hands it on, and its engine ends at other rows than the prompt has places for."""
    with pytest.raises(ConfigError, match=sentence):
        pair.ours.prompt(["image"], {"rate": rate}, **asked)


def test_a_picture_too_long_to_lie_beside_tiles_is_refused_as_by_the_processor(pair: Pair) -> None:
    picture = Image.fromarray(np.zeros((50, 4000, 3), np.uint8))
    with pytest.raises(
        ConfigError, match="4000 x 50 pixels is 35 tokens beside its tiles; allowed:"
    ):
        processed(pair.ours.processor, {"rate": 0.5}, "image", [picture])
    info = pair.ours.processor.info
    with pytest.raises(RuntimeError, match="stack expects each tensor to be equal size"):
        info.get_hf_processor()(images=[picture], text=["<image>"], return_tensors="pt")
    assert layout(info, 20, 1000, {}).tokens > 16, "one that has no tiles"


@pytest.mark.parametrize("tiles", [3, 10])
def test_vllm_profiles_with_most_tiles_of_the_published_size(tiles: int) -> None:
    """Of 256 tokens each, and a whole picture of as many."""
    published = {"tile_size": 512, "max_image_tokens": 256, "max_tiles": tiles}
    info = pruning_processor(CHECKPOINT, kwargs=published).info
    assert largest(info).tokens == 256 * (tiles + 1)
    size = info.get_image_size_with_most_features()
    assert layout(info, size.height, size.width, {}) == largest(info)


def test_a_checkpoint_whose_pictures_vllm_counts_otherwise_is_refused_at_start() -> None:
    with pytest.raises(ConfigError, match="use_thumbnail of the image processor is False"):
        largest(pruning_processor(CHECKPOINT, kwargs={"use_thumbnail": False}).info)
