"""Offline use: `LLM(mm_processor_kwargs={"vtprune": {...}})` prunes like the server."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from forked import run
from media import photo_question
from vllm_process import MODELS, environment
from vllm_server import Server

pytestmark = pytest.mark.server

SCRIPT = Path(__file__).with_name("offline_answer.py")


def _run(settings: dict[str, object], folder: Path) -> subprocess.CompletedProcess[str]:
    content = folder / "content.json"
    content.write_text(json.dumps(photo_question(0)))
    command = [str(SCRIPT), str(MODELS / "demo"), str(content), json.dumps(settings)]
    return run(command, environment(), folder, timeout=300)


def test_offline_answer_is_the_servers(pruned: Server, tmp_path: Path) -> None:
    result = _run({"tokens": 64}, tmp_path)
    assert result.returncode == 0, result.stderr[-4000:]
    completion = pruned.ask(photo_question(0))
    answer = completion["choices"][0]["message"]["content"]
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("answer ")]
    expected = [completion["usage"]["prompt_tokens"], answer]
    assert json.loads(line.removeprefix("answer ")) == expected


def test_bad_settings_raise_the_sentence(tmp_path: Path) -> None:
    result = _run({"rate": 1.5}, tmp_path)
    assert result.returncode != 0
    assert "rate is 1.5; it should be less than 1" in result.stderr.splitlines()[-1]
