"""A decoder that mixes linear with full attention, Qwen3.5's: its state is of the tokens that it
was fed. In bfloat16, since vLLM's linear attention on a CPU knows no other dtype.

Positions and the answers to pruned prompts are in `test_positions`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from answer_record import CASES, SETTINGS
from forked import run
from position_record import QWEN
from vllm_process import MODELS, environment

pytestmark = pytest.mark.server

OFF, EVERY, HALF = SETTINGS[:3]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a pruning and a stock engine answered."""
    folder, script = tmp_path_factory.mktemp("hybrid"), Path(__file__).with_name("answer_record.py")
    results = {}
    for kind in ("pruned", "stock"):
        file = folder / f"{kind}.pt"
        arguments = [str(MODELS / "demo-qwen3.5"), QWEN.picture, kind, str(file), "bfloat16"]
        settings = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
        done = run([str(script), *arguments], environment(**settings), folder, timeout=300)
        assert done.returncode == 0, done.stderr[-4000:]
        results[kind] = torch.load(file)
    return results


def _of(found: dict[str, Any], settings: dict[str, Any]) -> Any:
    return found["pruned"][json.dumps(settings)]


def test_rate_0_is_stock(found: dict[str, Any]) -> None:
    """Alone, on prefix hits and together in steps of every size."""
    assert _of(found, OFF) == found["stock"]


def test_keeping_all_is_stock(found: dict[str, Any]) -> None:
    """What takes the pruned path is the same to the decoder, digits taken off."""
    for ours, stock in zip(_of(found, EVERY)["alone"], found["stock"]["alone"], strict=True):
        assert (ours["prompt"], ours["answer"]) == (stock["prompt"], stock["answer"])
        assert ours["logprobs"] == pytest.approx(stock["logprobs"], abs=1e-4)


def test_half_of_a_picture_is_another_prompt_and_another_answer(found: dict[str, Any]) -> None:
    pairs = zip(CASES, _of(found, HALF)["alone"], found["stock"]["alone"], strict=True)
    for (_, pictures), ours, stock in pairs:
        assert (len(ours["prompt"]) < len(stock["prompt"])) == bool(pictures)
        assert (ours["answer"] != stock["answer"]) == bool(pictures)
