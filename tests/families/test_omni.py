"""Qwen-Omni's thinkers, by their classes in vLLM, without an engine: audio beside pruned pictures
and videos, and between the tokens of a video, beside stock vLLM. `test_relatives` has them without
audio.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import vllm
from beside_stock import Side, Stock
from contract import SERVED
from pruned_model import pruned_model, stock_model
from vllm.exceptions import VLLMValidationError

from vllm_pruner.families.qwen3_omni_moe import QWEN3_OMNI
from vllm_pruner.layout.positions import split
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.settings.keys import PLAN_TEXT

pytestmark = pytest.mark.slow

CHECKPOINTS = [each for each in SERVED if each.endswith("-omni")]

INTERLEAVED = {"use_audio_in_video": True}
MESSAGES: dict[str, dict[str, Any]] = {
    "audio alone": {"kinds": ["audio"]},
    "audio before": {"kinds": ["audio", "image"]},
    "audio between": {"kinds": ["image", "audio", "image", "audio"]},
    "a video too": {"kinds": ["video", "audio", "image"]},
    "a fast video": {"kinds": ["video", "image"], "fps": 4.0},
    "audio of a video": {"kinds": ["image", "video", "image"], "silent": ["audio"], **INTERLEAVED},
}
"""The last one's video has its audio between its tokens; a frame of the fast one lasts half a
second, where vLLM otherwise takes one or two."""


@dataclass
class Pair:
    """A thinker, and what stock vLLM makes of each message."""

    stock: dict[str, Stock]
    ours: Side


@pytest.fixture(scope="module", params=CHECKPOINTS)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    flags, stock = {"dtype": "float32", "enforce_eager": True}, {}
    with stock_model(request.param, **flags) as (config, model):
        side = Side(config, model)
        for name, message in MESSAGES.items():
            output = side.prompt(**message)
            stock[name] = Stock(output, side.rows(output)[0], side.positions(output))
    with pruned_model(request.param, {}, **flags) as (config, model):
        ours = Side(config, model)
        model.on_selection = lambda _tokens, index, _layout: ours.chosen.extend(index.tolist())
        yield Pair(stock, ours)


@pytest.mark.parametrize("name", MESSAGES)
def test_rate_0_is_stock_bit_for_bit(pair: Pair, name: str) -> None:
    stock, output = pair.stock[name], pair.ours.prompt(**MESSAGES[name], settings={"rate": 0.0})
    assert output["prompt_token_ids"] == stock.output["prompt_token_ids"]
    rows, _ = pair.ours.rows(output)
    for kind, expected in stock.rows.items():
        for found, whole in zip(rows[kind], expected, strict=True):
            assert torch.equal(split(found)[0], whole)
    for step in (4096, 37, 7):
        positions, delta = pair.ours.positions(output, rows, step)
        assert torch.equal(positions, stock.positions[0]) and delta == stock.positions[1]


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("settings", [{"rate": 0.6}, {"tokens": 3, "video_method": "evs"}], ids=str)
def test_audio_is_whole_and_all_stands_where_it_would_unpruned(
    pair: Pair, name: str, settings: dict[str, Any]
) -> None:
    message, stock = MESSAGES[name], pair.stock[name]
    whole = {"video_rate": 0.0} if "silent" in message else {}
    output = pair.ours.prompt(**message, settings={**settings, **whole})
    rows, chosen = pair.ours.rows(output)
    assert {kind for kind, kept in chosen.items() if kept} == {
        kind for kind in chosen if kind == "image" or (kind == "video" and not whole)
    }
    for kind, expected in stock.rows.items():
        kept = chosen[kind] or [range(len(each)) for each in expected]
        for found, all_rows, index in zip(rows[kind], expected, kept, strict=True):
            torch.testing.assert_close(split(found)[0], all_rows[[*index]])
            assert len(index) < len(all_rows) or not chosen[kind]
    at = stock.at(output, chosen)
    for step in (4096, 37, 7):
        positions, delta = pair.ours.positions(output, rows, step)
        assert torch.equal(positions, stock.positions[0][:, at])
        assert delta + len(at) == stock.positions[1] + stock.positions[0].shape[1]


def test_a_video_with_audio_between_its_tokens_stays_whole_or_is_refused(pair: Pair) -> None:
    message = MESSAGES["audio of a video"]
    for settings in ({}, {"rate": 0.5}, {"rate": 0.0, "video_rate": 0.1}):
        with pytest.raises(VLLMValidationError) as raised:
            pair.ours.prompt(**message, settings=settings)
        assert str(raised.value).startswith(
            "use_audio_in_video is True, but a video with audio between its tokens cannot be "
            "pruned; allowed: vtprune video_rate 0, which leaves videos whole, or use_audio_in_vid"
        )


def test_audio_is_no_text_of_the_question(pair: Pair) -> None:
    asked = {"method": "adafv"}
    texts = []
    for kinds in (["image"], ["image", "audio"]):
        (item,) = pair.ours.prompt(kinds, settings=asked)["mm_kwargs"]["image"]
        texts.append(item.get_data()[PLAN_TEXT].tolist())
    alone, beside = texts
    assert alone and beside == alone * 2, "the words behind the audio follow those before it"


def test_qwen3_omni_is_refused_where_vllm_places_it_wrongly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vllm, "__version__", "0.31.0")
    with pytest.raises(ConfigError, match="allowed: vLLM 0.32 or newer, because 0.31 places its"):
        QWEN3_OMNI.largest(None)
