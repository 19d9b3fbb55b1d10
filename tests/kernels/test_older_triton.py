"""Every kernel also compiles under the older Triton that vLLM 0.32 brings on a GPU.

`test_ahead_of_time.py` runs again in a process that imports that Triton instead of `.venv`'s.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from python_path import path_with

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".cache"
OLDER = "3.6.0"


@pytest.fixture(scope="module")
def done() -> subprocess.CompletedProcess[str]:
    """The tests in question, run for all GPUs by one process, which has to import torch."""
    folder = CACHE / f"triton-{OLDER}"
    assert (folder / "triton").exists(), f"{folder} lacks Triton: run `make setup`"
    return _pytest(folder, "sm_ and not extreme")


@pytest.mark.parametrize("capability", [80, 90, 100])
def test_kernels_compile_under_the_older_triton(
    done: subprocess.CompletedProcess[str], capability: int
) -> None:
    assert done.returncode == 0, done.stdout[-6000:]
    passed = re.findall(rf"^PASSED .*\[sm_{capability}-", done.stdout, re.MULTILINE)
    assert len(passed) >= 28  # nine operators, 14 algorithms in all, in two types
    assert f"Triton {OLDER}" in done.stdout


def _pytest(triton: Path, chosen: str) -> subprocess.CompletedProcess[str]:
    """Run the tests in question with that Triton before all other packages."""
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-rp", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, "-p", "no:xdist", HERE / "test_ahead_of_time.py", "-k", chosen],
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")},
            "PYTHONPATH": path_with(triton),
        },
        capture_output=True,
        text=True,
        cwd=HERE.parents[1],
    )
