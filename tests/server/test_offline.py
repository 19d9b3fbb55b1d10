"""Offline use: `LLM(mm_processor_kwargs={"vtprune": {...}})` prunes like the server."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from forked import run
from media import photo_question
from vllm_process import MODELS, environment
from vllm_server import Server

pytestmark = pytest.mark.server

SCRIPT = Path(__file__).with_name("offline_answer.py")
OWN: list[dict[str, Any]] = [{"method": "random", "tokens": 40}, {"rate": 0}]


def _run(settings: dict[str, object], folder: Path) -> subprocess.CompletedProcess[str]:
    content = folder / "content.json"
    content.write_text(json.dumps(photo_question(0)))
    command = [str(SCRIPT), str(MODELS / "demo"), str(content), json.dumps(settings)]
    return run([*command, json.dumps(OWN)], environment(), folder, timeout=300)


def test_offline_answers_and_counts_are_the_servers(pruned: Server, tmp_path: Path) -> None:
    result = _run({"tokens": 64}, tmp_path)
    assert result.returncode == 0, result.stderr[-4000:]
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("answers ")]
    answers = json.loads(line.removeprefix("answers "))
    for answer, settings in zip(answers, [None, *OWN], strict=True):
        body = {} if settings is None else {"vtprune": settings}
        completion = pruned.ask(photo_question(0), **body)
        usage = completion["usage"]
        text = completion["choices"][0]["message"]["content"]
        assert answer == [usage["prompt_tokens"], text, usage.get("visual_tokens")]
    assert [counts["kept"] for *_, counts in answers] == [64, 40, 576]


def test_bad_settings_raise_the_sentence(tmp_path: Path) -> None:
    result = _run({"rate": 1.5}, tmp_path)
    assert result.returncode != 0
    assert "rate is 1.5; it should be less than 1" in result.stderr.splitlines()[-1]
