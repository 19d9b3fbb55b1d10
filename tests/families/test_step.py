"""Step3-VL by its classes in vLLM, without an engine, beside stock vLLM: windows and the whole
picture, and attention that is pooled as the tower halves its grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import beside_stock
import numpy as np
import pytest
import torch
from beside_stock import Rows, Side
from contract import batched
from PIL import Image
from pruned_model import pruned_model, stock_model
from pruning_processor import pruning_processor

from vllm_pruner.families.step_windows import images, largest, layout
from vllm_pruner.layout.shares import shares
from vllm_pruner.methods.base import Need
from vllm_pruner.plan import ImagePlan
from vllm_pruner.settings.errors import ConfigError

pytestmark = pytest.mark.slow

CHECKPOINTS = ["demo-step"]
_NOISE = np.random.default_rng(0)
PICTURES = [
    Image.fromarray(_NOISE.integers(0, 256, (*size, 3), np.uint8))
    for size in ((300, 400), (120, 260), (760, 900))
]
WINDOWS = [0, 2, 4]
"""Of each picture: of a small one none, of a long one as wide as it is high."""

REQUESTS: dict[str, dict[str, Any]] = {"as they are": {}, "whole": {"enable_patch": False}}
"""Arguments of a request for vLLM's processor."""


@dataclass
class Pair:
    """A model, and what stock vLLM makes of the pictures by each request: the prompt, and rows."""

    stock: dict[str, tuple[Any, Rows]]
    ours: Side

    def prompt(self, name: str, settings: dict[str, Any]) -> Any:
        return self.ours.prompt(["image"] * len(PICTURES), settings, **REQUESTS[name])


@pytest.fixture(scope="module", params=CHECKPOINTS)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    flags = {"dtype": "float32", "enforce_eager": True, "trust_remote_code": True}
    patch = pytest.MonkeyPatch()
    patch.setitem(beside_stock.ITEMS, "image", PICTURES)
    with stock_model(request.param, **flags) as made:
        side = Side(*made)
        outputs = {
            name: side.prompt(["image"] * len(PICTURES), **asked)
            for name, asked in REQUESTS.items()
        }
        stock = {name: (output, side.rows(output)[0]) for name, output in outputs.items()}
    with pruned_model(request.param, {}, **flags) as (config, model):
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


@pytest.mark.parametrize(
    "settings",
    [{"rate": 1e-12}, {"rate": 0.6}, {"tokens": 2, "method": "scope", "importance": "merger_norm"}],
    ids=str,
)
def test_kept_rows_are_those_of_stock_each_window_with_its_share(
    pair: Pair, settings: dict[str, Any]
) -> None:
    """All pictures in one batch, and each alone; in the prompt all marks stay where they were."""
    output, stock = pair.stock["as they are"]
    ours = pair.prompt("as they are", settings)
    items, token = ours["mm_kwargs"]["image"], pair.ours.processor.info.image_token
    together = pair.ours.rows(ours)[0]["image"]
    for number, (item, rows, whole) in enumerate(zip(items, together, stock["image"], strict=True)):
        pair.ours.chosen.clear()
        with torch.inference_mode():
            (alone,) = pair.ours.model.embed_multimodal(**batched([item]))
        (kept,) = pair.ours.chosen
        torch.testing.assert_close(alone, rows)
        torch.testing.assert_close(rows, whole[kept])
        ids, before = (_picture(each, number) for each in (ours, output))
        stays = before != token
        stays[(before == token).nonzero().flatten()[torch.tensor(kept)]] = True
        assert torch.equal(ids, before[stays])
        sizes = [81] * WINDOWS[number] + [169]
        of_windows = np.searchsorted(np.cumsum(sizes), kept, side="right")
        found = np.bincount(of_windows, minlength=len(sizes)).tolist()
        assert found == shares(sizes, len(kept))


def _picture(output: Any, number: int) -> torch.Tensor:
    """What stands for a picture in a prompt."""
    place = output["mm_placeholders"]["image"][number]
    return torch.tensor(output["prompt_token_ids"][place.offset :][: place.length])


def test_a_token_has_the_attention_of_the_places_that_it_is_made_of(pair: Pair) -> None:
    """Of the last layer: twice the mean over three by three, within the picture."""
    items = pair.prompt("as they are", {"rate": 0.5})["mm_kwargs"]["image"]
    model, found = pair.ours.model, []
    attention = model.vision_model.transformer.resblocks[-1].attn.attn
    hook = attention.register_forward_pre_hook(lambda _, args: found.append(args[:2]))
    encoded = images(model.config, batched(items))
    columns = model.tower.encode(encoded, frozenset({Need.IMPORTANCE}))
    hook.remove()
    received = {}
    for query, key in found:
        query, key = (each.unflatten(2, (attention.num_heads, -1)) for each in (query, key))
        logits = torch.einsum("pqhd,pkhd->phqk", query, key) * attention.scale
        grids = _halved(_halved(logits.softmax(dim=-1).mean(dim=(1, 2)).view(len(query), -1)))
        received[grids.shape[1]] = list(grids)
    expected = []
    for number in WINDOWS:
        expected += [received[81].pop(0) for _ in range(number)] + [received[169].pop(0)]
    torch.testing.assert_close(columns[str(Need.IMPORTANCE)], torch.cat(expected))


def _halved(grids: torch.Tensor) -> torch.Tensor:
    """The mean of what a convolution of 3 x 3 looks at, at every other place of square grids."""
    side = round(grids.shape[1] ** 0.5)
    square = grids.view(-1, side, side)
    rows = [
        square[:, max(0, r - 1) : r + 2, max(0, c - 1) : c + 2].mean(dim=(1, 2))
        for r in range(0, side, 2)
        for c in range(0, side, 2)
    ]
    return torch.stack(rows, dim=1)


def test_vllms_graphs_hand_out_where_the_next_picture_is_written(pair: Pair) -> None:
    """Which is why they are not used: of a picture without windows there is no copy, as asked."""
    written, found = torch.zeros(169, 8), {}
    more = {"clone": True, "batch_mm_kwargs": {"num_patches": torch.tensor([0])}}
    model: Any = pair.ours.model
    model.postprocess_encoder_output({"global": written, "local": None}, [0], [169], found, **more)
    written.fill_(1)
    assert bool((found[0] == 1).all())
    assert not model.family.stock_captured


def test_the_text_of_an_image_is_the_question_without_marks(pair: Pair) -> None:
    output = pair.prompt("as they are", {"method": "adafv"})
    tokenizer = pair.ours.processor.info.get_tokenizer()
    plans = [ImagePlan.pop_all(batched([item]))[0] for item in output["mm_kwargs"]["image"]]
    assert [tokenizer.decode(plan.text) for plan in plans] == ["So?So?So?", "So?So?", "So?"]


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_what_the_model_does_not_look_at_is_refused(pair: Pair, rate: float) -> None:
    """Stock vLLM's engine ends at other rows than the prompt has places for."""
    for name, value, counted in (
        ("image_size", 364, 728),
        ("patch_size", 252, 504),
        ("num_image_feature_size", 16, 169),
    ):
        sentence = f"{name} of the image processor is {value}; allowed: {counted}"
        with pytest.raises(ConfigError, match=sentence):
            pair.ours.prompt(["image"], {"rate": rate}, **{name: value})


def test_vllm_profiles_with_most_windows_and_more_are_refused() -> None:
    """Stock vLLM cuts a long picture into more than it says that it has at most."""
    info = pruning_processor("demo-step").info
    assert largest(info).tokens == 36 * 81 + 169
    assert layout(info, 2000, 60, {}).tiles == 34
    with pytest.raises(ConfigError, match="40 x 2000 pixels is cut into 50 windows; allowed: up"):
        layout(info, 2000, 40, {})


def test_a_checkpoint_with_other_sizes_than_the_processor_is_refused() -> None:
    info = pruning_processor("demo-step").info
    info.get_hf_config().vision_config.patch_size = 16
    with pytest.raises(ConfigError, match="728 pixels has 144 tokens by vision_config of config"):
        largest(info)
