"""Offline use: `LLM(mm_processor_kwargs={"vtprune": {...}})` prunes like the server."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from media import photo_question
from vllm_process import MODELS, environment
from vllm_server import Server

pytestmark = pytest.mark.server

SCRIPT = """
import json, sys
from vllm import LLM, SamplingParams

if __name__ == "__main__":
    model, content, settings = sys.argv[1], json.loads(sys.stdin.read()), json.loads(sys.argv[2])
    options = {"dtype": "float32", "max_model_len": 4096, "max_num_seqs": 64}
    llm = LLM(model, **options, mm_processor_kwargs={"vtprune": settings})
    sampling = SamplingParams(temperature=0, max_tokens=12)
    (output,) = llm.chat([{"role": "user", "content": content}], sampling)
    print("answer", json.dumps([len(output.prompt_token_ids), output.outputs[0].text]))
"""


def _run(settings: dict[str, object]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, str(MODELS / "demo"), json.dumps(settings)],
        input=json.dumps(photo_question(0)),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_offline_answer_is_the_servers(pruned: Server) -> None:
    result = _run({"tokens": 64})
    assert result.returncode == 0, result.stderr[-4000:]
    completion = pruned.ask(photo_question(0))
    answer = completion["choices"][0]["message"]["content"]
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("answer ")]
    expected = [completion["usage"]["prompt_tokens"], answer]
    assert json.loads(line.removeprefix("answer ")) == expected


def test_bad_settings_raise_the_sentence() -> None:
    result = _run({"rate": 1.5})
    assert result.returncode != 0
    assert "rate is 1.5; it should be less than 1" in result.stderr.splitlines()[-1]
