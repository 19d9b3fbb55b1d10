"""lmms-eval and VLMEvalKit themselves ask the demo.

Both are skipped where they are not installed: `make test-harness`.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from nightly import NIGHTLY
from vllm_server import Server

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.server, pytest.mark.slow, NIGHTLY, pytest.mark.timeout(1200)]


def _needs(module: str) -> pytest.MarkDecorator:
    reason = f"{module} is not installed; `make test-harness`"
    return pytest.mark.skipif(find_spec(module) is None, reason=reason)


@pytest.mark.parametrize(
    "harness",
    [
        pytest.param("lmms-eval", marks=_needs("lmms_eval")),
        pytest.param("vlmevalkit", marks=_needs("vlmeval")),
    ],
)
def test_a_small_task_is_asked_unpruned_pruned_and_shrunk(answering: Server, harness: str) -> None:
    script = str(ROOT / "benchmarks" / "harnesses.py")
    flags = ["--url", answering.url, "--items", "25", "--keep", "1/9"]
    run = subprocess.run(
        [sys.executable, script, harness, *flags], capture_output=True, text=True, timeout=900
    )
    assert run.returncode == 0, run.stderr[-6000:]
    lines = run.stdout.splitlines()[2:]
    rows = {line.split("|")[1].strip(): line.split("|")[3:5] for line in lines}
    assert {name: int(tokens) for name, (tokens, _) in rows.items()} == {
        "unpruned": 256,
        "vispruner": 28,
        "resize": 25,
    }
    accuracy = {name: float(text) for name, (_, text) in rows.items()}
    assert accuracy["unpruned"] >= 60
    assert accuracy["unpruned"] >= accuracy["vispruner"] > accuracy["resize"]
