"""Models that read documents, by their classes in vLLM, without an engine: what the decoder gets of
pictures, and where it stands, beside stock vLLM. `tests/server/test_reading.py` has answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from beside_stock import Side, Stock
from contract import batched
from pruned_model import pruned_model, stock_model
from vllm.model_executor.layers.attention import MMEncoderAttention

from vllm_pruner.layout.positions import split
from vllm_pruner.methods.base import Need

pytestmark = pytest.mark.slow

MARKS = {
    "demo-glm-ocr": "<|begin_of_image|><|image|><|end_of_image|><|begin_of_video|><|end_of_video|>",
    "demo-paddleocr": "<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>",
    "demo-dots-ocr": "<|img|><|imgpad|><|endofimg|>",
    "demo-lightonocr": "<|image_pad|>",
}
"""What is no text of the question, by checkpoint: all tokens of an image and around it."""

PLAIN = {"demo-dots-ocr", "demo-lightonocr"}
"""Those whose positions have one dimension."""

OWN_CODE = {"demo-dots-ocr"}
"""Those with a configuration of the checkpoint's; vLLM then takes PaddleOCR-VL for another one."""

PICTURES = ["image", "image"]


@dataclass
class Pair:
    """One of them."""

    name: str
    stock: Stock
    ours: Side

    def without_digits(self, rows: list[torch.Tensor]) -> list[torch.Tensor]:
        return rows if self.name in PLAIN else [split(each)[0] for each in rows]


@pytest.fixture(scope="module", params=MARKS)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    name, flags = request.param, {"dtype": "float32", "enforce_eager": True}
    flags["trust_remote_code"] = name in OWN_CODE
    with stock_model(name, **flags) as (config, model):
        assert type(model).__module__.startswith("vllm.model_executor.models.")
        assert config.model_config.uses_mrope == (name not in PLAIN)
        side = Side(config, model)
        output = side.prompt(PICTURES)
        places = None if name in PLAIN else side.positions(output)
        stock = Stock(output, side.rows(output)[0], places)
    with pruned_model(name, {}, **flags) as (config, model):
        ours = Side(config, model)
        model.on_selection = lambda _tokens, index, _layout: ours.chosen.extend(index.tolist())
        yield Pair(name, stock, ours)


def test_rate_0_is_stock_bit_for_bit(pair: Pair) -> None:
    output = pair.ours.prompt(PICTURES, {"rate": 0.0})
    assert output["prompt_token_ids"] == pair.stock.output["prompt_token_ids"]
    rows, _ = pair.ours.rows(output)
    found = pair.without_digits(rows["image"])
    for one, other in zip(found, pair.stock.rows["image"], strict=True):
        assert torch.equal(one, other)
    if pair.stock.positions is not None:
        positions, delta = pair.ours.positions(output, rows)
        assert torch.equal(positions, pair.stock.positions[0])
        assert delta == pair.stock.positions[1]


BEHIND = [{"rate": 1e-12}, {"rate": 0.5}, {"tokens": 7}]
EARLY = [{"rate": 1e-12, "method": "pixels"}, {"tokens": 40, "method": "pixels", "floor": "off"}]


@pytest.mark.parametrize(
    "settings", [*({"method": "vispruner", **each} for each in BEHIND), *EARLY], ids=str
)
def test_kept_rows_stand_where_they_would_unpruned(pair: Pair, settings: dict[str, Any]) -> None:
    """Exactly as many as asked for, ascending, with all other tokens of the prompt; those that are
    chosen behind the tower are stock's."""
    output = pair.ours.prompt(PICTURES, settings)
    rows, chosen = pair.ours.rows(output)
    at = pair.stock.at(output, chosen)
    found = pair.without_digits(rows["image"])
    for one, whole, index in zip(found, pair.stock.rows["image"], chosen["image"], strict=True):
        of_all = {1e-12: len(whole), 0.5: round(len(whole) / 2)}
        assert len(index) == settings.get("tokens", of_all.get(settings.get("rate", 0)))
        assert index == sorted({*index})
        is_same = settings["method"] != "pixels" or len(index) == len(whole)
        close = torch.allclose(one, whole[index], rtol=1e-4, atol=1e-4)
        assert close == is_same, "what is encoded alone never saw the others"
    if pair.stock.positions is None:
        return
    for step in (4096, 37, 7):
        positions, delta = pair.ours.positions(output, rows, step)
        assert torch.equal(positions, pair.stock.positions[0][:, at])
    assert delta + positions.shape[1] == sum(
        (pair.stock.positions[1], pair.stock.positions[0].shape[1])
    )


def test_a_request_that_asks_for_nothing_gets_all_that_is_not_empty(pair: Pair) -> None:
    """By the server's settings, which the family has filled in; noise has nothing empty."""
    config = pair.ours.processor.info.prune_config
    assert (config.method, config.floor, config.rate) == ("pixels", "content", 0.95)
    rows, _ = pair.ours.rows(pair.ours.prompt(PICTURES))
    whole = [len(each) for each in pair.stock.rows["image"]]
    assert [len(each) for each in rows["image"]] == whole


def test_tokens_of_and_around_an_image_are_no_question(pair: Pair) -> None:
    info = pair.ours.processor.info
    tokenizer: Any = info.get_tokenizer()
    around = {*tokenizer(MARKS[pair.name], add_special_tokens=False)["input_ids"]}
    assert info.marks >= around
    assert info.image_token in around


def test_importance_is_what_patches_receive(pair: Pair) -> None:
    """By the queries and keys that the tower's last layer is called with."""
    model, seen = pair.ours.model, []
    modules = model.tower.module.modules()
    inner = [each for each in modules if isinstance(each, MMEncoderAttention)][-1]
    stock_forward = inner.forward

    def look(*args: Any, **kwargs: Any) -> Any:
        seen.append(args[:2] or (kwargs["query"], kwargs["key"]))
        return stock_forward(*args, **kwargs)

    output = pair.ours.prompt(["image"], {"rate": 0.5, "method": "attention"})
    fields = {name: value for name, value in _fields(output).items() if "vtprune" not in name}
    images = model._images(fields)
    inner.forward = look
    try:
        with torch.inference_mode():
            found = model.tower.encode(images, frozenset({Need.IMPORTANCE}))
    finally:
        del inner.forward
    query, key = (each[0].transpose(0, 1) for each in seen[-1])
    weights = (query @ key.transpose(1, 2) * inner.scale).softmax(dim=-1)
    received = weights.mean(dim=(0, 1)).unflatten(0, (-1, 4)).sum(dim=1)
    torch.testing.assert_close(found[Need.IMPORTANCE], received, rtol=1e-3, atol=1e-7)


def _fields(output: Any) -> dict[str, Any]:
    return batched(output["mm_kwargs"]["image"])
