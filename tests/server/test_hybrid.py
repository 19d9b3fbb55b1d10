"""A decoder that mixes linear with full attention, Qwen3.5's: its state is of the tokens that it
was fed. In bfloat16, since vLLM's linear attention on a CPU knows no other dtype.

Positions and the answers to pruned prompts are in `test_positions`; those to prompts in chunks of
any size, in float32, in `test_relatives`.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from answer_pair import Answers, answers_of
from answer_record import SETTINGS, cases
from nightly import NIGHTLY
from position_record import QWEN

pytestmark = pytest.mark.server

RELATIVES = ("demo-interns2", "demo-mobius")
OFF, EVERY, HALF = SETTINGS[:3]


@pytest.fixture(
    scope="module",
    params=["demo-qwen3.5", *(pytest.param(each, marks=NIGHTLY) for each in RELATIVES)],
)
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    return answers_of(request.param, QWEN.picture, tmp_path_factory.mktemp("hybrid"), "bfloat16")


def _of(found: Answers, settings: dict[str, Any]) -> Any:
    return found.pruned[json.dumps(settings)]


def test_rate_0_is_stock(found: Answers) -> None:
    """Alone, on prefix hits and together in steps of every size."""
    assert _of(found, OFF) == found.stock


def test_keeping_all_is_stock(found: Answers) -> None:
    """What takes the pruned path is the same to the decoder, digits taken off."""
    for ours, stock in zip(_of(found, EVERY)["alone"], found.stock["alone"], strict=True):
        assert (ours["prompt"], ours["answer"]) == (stock["prompt"], stock["answer"])
        assert ours["logprobs"] == pytest.approx(stock["logprobs"], abs=1e-4)


def test_half_of_a_picture_is_another_prompt_and_another_answer(found: Answers) -> None:
    asked = cases(found.checkpoint)
    for case, ours, stock in zip(
        asked, _of(found, HALF)["alone"], found.stock["alone"], strict=True
    ):
        assert (len(ours["prompt"]) < len(stock["prompt"])) == bool(case[1])
        assert (ours["answer"] != stock["answer"]) == bool(case[1])
