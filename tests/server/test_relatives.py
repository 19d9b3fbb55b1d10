"""Models that vLLM builds from the parts of others, in the real engine: alone, cached, together and
in chunks, every night. `tests/families/test_relatives.py` has what the decoder gets."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from answer_pair import Answers, answers_of
from answer_record import SETTINGS, cases
from nightly import NIGHTLY

from vllm_pruner.layout.positions import DIGITS

pytestmark = [pytest.mark.server, NIGHTLY]

_QWEN = "<|vision_start|><|image_pad|><|vision_end|>"
IMAGES = {
    "demo-interns1": "<IMG_CONTEXT>",
    "demo-interns2": _QWEN,
    "demo-mobius": _QWEN,
    "demo-exaone4.5": "<vision><|image_pad|></vision>",
    "demo-cosmos3": _QWEN,
    "demo-skywork": "<image>",
    "demo-qianfan": "<image>",
    "demo-qwen2.5-omni": "<|vision_bos|><|IMAGE|><|vision_eos|>",
    "demo-qwen3-omni": _QWEN,
    "demo-keye": _QWEN,
    "demo-keye1.5": _QWEN,
    "demo-ernie4.5": "<|IMAGE_START|><|image@placeholder|><|IMAGE_END|>",
}
"""What stands for an image in a prompt, by checkpoint."""

PLAIN = ["demo-interns1", "demo-exaone4.5", "demo-skywork", "demo-qianfan"]
"""Those with one-dimensional positions."""

OFF, EVERY, *PRUNED = (json.dumps(each) for each in SETTINGS)


@pytest.fixture(scope="module", params=IMAGES)
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    folder = tmp_path_factory.mktemp("answers")
    return answers_of(request.param, IMAGES[request.param], folder)


def test_rate_0_is_stock(found: Answers) -> None:
    assert found.pruned[OFF] == found.stock


def test_keeping_all_is_stock_up_to_rounding(found: Answers) -> None:
    for ours, stock in zip(found.pruned[EVERY]["alone"], found.stock["alone"], strict=True):
        assert ours["prompt"] == stock["prompt"]
        _are_the_same(ours, stock)


@pytest.mark.parametrize("settings", PRUNED)
def test_the_same_answer_alone_again_together_and_in_chunks(found: Answers, settings: str) -> None:
    alone, asked = found.pruned[settings]["alone"], cases(found.checkpoint)
    for how, answers in found.pruned[settings].items():
        for case, one, other in zip(asked, answers, alone, strict=True):
            assert one["prompt"] == other["prompt"]
            if {"clip", "sound"} <= {*case[1]} and how in ("together 37", "together 16"):
                continue  # vLLM swaps rows of such a video and its audio, unpruned too
            _are_the_same(one, other)
    for case, ours, stock in zip(asked, alone, found.stock["alone"], strict=True):
        shorter = len(ours["prompt"]) < len(stock["prompt"])
        assert shorter == bool(case[1]) or case[1] == ["small"], "which may have nine tokens"
        changed = ours["answer"] != stock["answer"]
        assert changed == shorter, "the answer depends on the tokens of a picture"


def _are_the_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one["answer"] == other["answer"]
    assert one["logprobs"] == pytest.approx(other["logprobs"], abs=2e-3)


@pytest.mark.parametrize("by", ["selected", "by norm"])
def test_the_decoder_gets_the_rows_that_are_kept(found: Answers, by: str) -> None:
    chosen = found.pruned[by]
    kept, width = chosen["kept"], chosen["rows"].shape[1]
    if found.checkpoint not in PLAIN:
        width -= DIGITS
    torch.testing.assert_close(chosen["embedded"][:, :width], chosen["rows"][kept, :width])
    assert len(kept) == round(len(chosen["rows"]) / 2)
    assert bool((chosen["importance"] > 0).all())
