"""Models that vLLM builds from the parts of others, by their classes in vLLM, without an engine:
what the decoder gets of pictures and videos, and where it stands, beside stock vLLM.

The contract of all families is checked on them every night, and so are answers (`tests/server`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from beside_stock import Side, Stock
from contract import ENCODED, SERVED
from pruned_model import pruned_model, stock_model
from vllm_process import MODELS

from vllm_pruner.layout.positions import split

pytestmark = pytest.mark.slow

MARKS = {
    "demo-interns1": "<IMG_CONTEXT>",
    "demo-interns2": "<|vision_start|><|image_pad|><|vision_end|>",
    "demo-mobius": "<|vision_start|><|image_pad|><|vision_end|>",
    "demo-exaone4.5": "<vision><|image_pad|></vision>",
    "demo-cosmos3": "<|vision_start|><|image_pad|><|vision_end|>",
    "demo-skywork": "<IMG_CONTEXT>",
    "demo-qianfan": "<IMG_CONTEXT>",
    "demo-qwen4": "<|vision_start|><|image_pad|><|vision_end|>",
    "demo-qwen2.5-omni": "<|vision_bos|><|IMAGE|><|vision_eos|>",
    "demo-qwen3-omni": "<|vision_start|><|image_pad|><|vision_end|>",
    "demo-glm5": "<|begin_of_image|><|image|><|end_of_image|>",
    "demo-kimi-k3": "<|media_begin|><|media_content|><|media_pad|><|media_end|>",
    "demo-minimax-m3": "]<]start of image[>[]<]image[>[]<]end of image[>[",
}
"""What is no text of the question, by checkpoint: all tokens of an image and around it."""

OTHERS = {
    **dict.fromkeys(MARKS, "<|video_pad|>"),
    **dict.fromkeys(["demo-skywork", "demo-qianfan", "demo-kimi-k3"], ""),
    "demo-qwen2.5-omni": "<|VIDEO|><|audio_bos|><|AUDIO|><|audio_eos|>",
    "demo-qwen3-omni": "<|video_pad|><|audio_start|><|audio_pad|><|audio_end|>",
    "demo-glm5": "<|begin_of_video|><|video|><|end_of_video|>",
    "demo-minimax-m3": "]<]video[>[",
}
"""The same of a video, and of audio."""

PLAIN = ["demo-interns1", "demo-exaone4.5", "demo-skywork", "demo-qianfan", *ENCODED]
FILMED = [name for name, words in OTHERS.items() if words]
MODELS_OF_VLLM = ("vllm.model_executor.models.", "vllm.models.")
MESSAGES = {"image": ["image", "image"], "video": ["video"]}


@dataclass
class Pair:
    """A relative."""

    name: str
    stock: dict[str, Stock]
    ours: Side

    @property
    def dtype(self) -> torch.dtype:
        found: torch.dtype = self.ours.config.model_config.dtype
        return found

    def without_digits(self, rows: list[torch.Tensor]) -> list[torch.Tensor]:
        return rows if self.name in PLAIN else [split(each)[0] for each in rows]


@pytest.fixture(scope="module", params=[*SERVED, *ENCODED])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    name = request.param
    dtype = json.loads((MODELS / name / "config.json").read_text())["dtype"]
    flags = {"dtype": dtype, "trust_remote_code": True, "enforce_eager": True}
    flags["mm_encoder_only"] = name in ENCODED
    kinds = ["image", "video"] if name in FILMED else ["image"]
    stock = {}
    with stock_model(name, **flags) as (config, model):
        assert type(model).__module__.startswith(MODELS_OF_VLLM)
        assert config.model_config.uses_mrope == (name not in PLAIN)
        side = Side(config, model)
        for kind in kinds:
            output = side.prompt(MESSAGES[kind])
            places = None if name in PLAIN else side.positions(output)
            stock[kind] = Stock(output, side.rows(output)[0], places)
    with pruned_model(name, {}, **flags) as (config, model):
        ours = Side(config, model)
        model.on_selection = lambda _tokens, index, _layout: ours.chosen.extend(index.tolist())
        yield Pair(name, stock, ours)


def test_rate_0_is_stock_bit_for_bit(pair: Pair) -> None:
    for kind, stock in pair.stock.items():
        output = pair.ours.prompt(MESSAGES[kind], {"rate": 0.0})
        assert output["prompt_token_ids"] == stock.output["prompt_token_ids"]
        rows, _ = pair.ours.rows(output)
        for found, expected in zip(pair.without_digits(rows[kind]), stock.rows[kind], strict=True):
            assert torch.equal(found, expected)
        if stock.positions is not None:
            positions, delta = pair.ours.positions(output, rows)
            assert torch.equal(positions, stock.positions[0]) and delta == stock.positions[1]


@pytest.mark.parametrize("settings", [{"rate": 1e-12}, {"rate": 0.5}, {"tokens": 7}], ids=str)
def test_kept_rows_are_those_of_stock_where_they_would_stand(
    pair: Pair, settings: dict[str, Any]
) -> None:
    """Exactly as many as asked for, ascending, with all other tokens of the prompt."""
    for kind, stock in pair.stock.items():
        output = pair.ours.prompt(MESSAGES[kind], settings)
        rows, chosen = pair.ours.rows(output)
        at = stock.at(output, chosen)
        kept = zip(pair.without_digits(rows[kind]), stock.rows[kind], chosen[kind], strict=True)
        for found, all_rows, index in kept:
            of_all = {1e-12: len(all_rows), 0.5: round(len(all_rows) / 2)}
            assert len(index) == settings.get("tokens", of_all.get(settings.get("rate", 0)))
            assert index == sorted({*index})
            close = {} if pair.dtype == torch.float32 else {"atol": 0.05, "rtol": 0.05}
            torch.testing.assert_close(found, all_rows[index], **close)
        if stock.positions is not None:
            for step in (4096, 37, 7):
                positions, delta = pair.ours.positions(output, rows, step)
                assert torch.equal(positions, stock.positions[0][:, at])
            assert delta + positions.shape[1] == sum(
                (stock.positions[1], stock.positions[0].shape[1])
            )


def test_a_prompt_without_a_budget_keeps_a_half(pair: Pair) -> None:
    """What the server does unless it is told otherwise."""
    output = pair.ours.prompt(MESSAGES["image"])
    rows, _ = pair.ours.rows(output)
    whole = [len(each) for each in pair.stock["image"].rows["image"]]
    assert [len(each) for each in rows["image"]] == [round(each / 2) for each in whole]


def test_tokens_of_and_around_an_image_are_no_question(pair: Pair) -> None:
    info = pair.ours.processor.info
    tokenizer: Any = info.get_tokenizer()
    around, others = (
        {*tokenizer(words[pair.name], add_special_tokens=False)["input_ids"]}
        for words in (MARKS, OTHERS)
    )
    assert info.marks == around | others
    assert around <= {*pair.stock["image"].output["prompt_token_ids"]}


def test_videos_are_pruned_where_they_are_taken(pair: Pair) -> None:
    assert (pair.ours.model.family.videos is not None) == (pair.name in FILMED)
    assert ("video" in pair.ours.processor.info.get_supported_mm_limits()) == (pair.name in FILMED)
