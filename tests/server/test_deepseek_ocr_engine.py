"""DeepSeek-OCR in the real engine, decoder and all: beside stock vLLM at rate 0, and pruned with
equal answers alone, on prefix hits, together and in steps of any size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import run
from nightly import NIGHTLY
from ocr_record import CASES, SETTINGS
from vllm_process import MODELS, environment

pytestmark = [pytest.mark.server, NIGHTLY]

OFF, *PRUNED = map(json.dumps, SETTINGS)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Answers of both engines; stock's under `null`."""
    folder, all_of_them = tmp_path_factory.mktemp("ocr"), {}
    for kind in ("stock", "pruned"):
        file, script = folder / f"{kind}.pt", Path(__file__).with_name("ocr_record.py")
        arguments = [str(script), str(MODELS / "demo-deepseek-ocr"), kind, str(file)]
        settings = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
        done = run(arguments, environment(**settings), folder, timeout=600)
        assert done.returncode == 0, done.stderr[-4000:]
        all_of_them |= torch.load(file)
    return all_of_them


def test_rate_0_is_stock(found: dict[str, Any]) -> None:
    assert found[OFF] == found["null"]


@pytest.mark.parametrize("settings", PRUNED)
def test_the_same_answer_alone_again_together_and_in_chunks(
    found: dict[str, Any], settings: str
) -> None:
    alone = found[settings]["alone"]
    for how, answers in found[settings].items():
        assert [each["answer"] for each in answers] == [each["answer"] for each in alone], how
    for case, ours, stock in zip(CASES, alone, found["null"]["alone"], strict=True):
        changed = ours["answer"] != stock["answer"]
        assert changed == bool(case[1]), "the answer depends on the tokens of a picture"
        assert (len(ours["prompt"]) < len(stock["prompt"])) == changed
