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

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".cache"
OLDER = "3.6.0"


@pytest.mark.parametrize("capability", [80, 90, 100])
def test_kernels_compile_under_the_older_triton(capability: int) -> None:
    folder = CACHE / f"triton-{OLDER}"
    assert (folder / "triton").exists(), f"{folder} lacks Triton: run `make setup`"
    done = _pytest(folder, f"sm_{capability} and not extreme")
    assert done.returncode == 0, done.stdout[-6000:]
    (passed,) = re.findall(r"(\d+) passed", done.stdout)
    assert int(passed) >= 28  # nine operators, 14 algorithms in all, in two types
    assert f"Triton {OLDER}" in done.stdout


def _pytest(triton: Path, chosen: str) -> subprocess.CompletedProcess[str]:
    """Run the tests in question with that Triton before all other packages."""
    inherited = [path for path in [os.environ.get("PYTHONPATH")] if path]
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, "-p", "no:xdist", HERE / "test_ahead_of_time.py", "-k", chosen],
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")},
            "PYTHONPATH": os.pathsep.join([str(triton), *inherited]),
        },
        capture_output=True,
        text=True,
        cwd=HERE.parents[1],
    )
