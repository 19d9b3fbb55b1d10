"""Every kernel also compiles under the older Tritons that supported vLLMs bring on a GPU.

`test_ahead_of_time.py` runs again in a process that imports such a Triton instead of `.venv`'s; at
night `test_ahead_of_time_amd.py` does too.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from bootstrap import OLDER_TRITONS, complete, older_triton
from nightly import NIGHTLY
from python_path import path_with

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
TARGETS = ("sm_80", "sm_90", "sm_100")
PRODUCTION = "compiles_without_spills"
"""Of the tests in question, those at production shapes."""
EVERY_RUN = {
    "3.6.0": (TARGETS, "sm_ and not extreme"),
    "3.7.1": (("sm_90",), f"sm_90 and {PRODUCTION}"),
    "3.8.0": (("sm_90",), f"sm_90 and {PRODUCTION}"),
}
"""Targets and tests under each; all of both are for the night, which takes minutes."""


@pytest.mark.parametrize("version", OLDER_TRITONS)
def test_kernels_compile_under_an_older_triton(version: str) -> None:
    _check(version, *EVERY_RUN[version])


@NIGHTLY
@pytest.mark.parametrize("version", OLDER_TRITONS)
def test_every_shape_compiles_under_an_older_triton(version: str) -> None:
    _check(version, TARGETS, "sm_")


@NIGHTLY
@pytest.mark.parametrize("version", OLDER_TRITONS)
def test_kernels_compile_for_amd_under_an_older_triton(version: str) -> None:
    _check(version, ("gfx942",), f"gfx942 and {PRODUCTION}", "test_ahead_of_time_amd.py")


def _check(
    version: str, targets: tuple[str, ...], chosen: str, file: str = "test_ahead_of_time.py"
) -> None:
    folder = older_triton(version)
    assert complete(folder).exists(), f"{folder} lacks Triton: run `make setup`"
    done = _pytest(folder, HERE / file, chosen)
    assert done.returncode == 0, done.stdout[-6000:]
    assert f"Triton {version}" in done.stdout
    for target in targets:
        passed = re.findall(rf"^PASSED .*{PRODUCTION}\[{target}-", done.stdout, re.MULTILINE)
        assert len(passed) >= 28  # nine operators, 14 algorithms in all, in two types


def _pytest(triton: Path, file: Path, chosen: str) -> subprocess.CompletedProcess[str]:
    """Run the tests in question with that Triton before all other packages, in one process, which
    has to import torch."""
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-rp", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, "-p", "no:xdist", file, "-k", chosen],
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")},
            "PYTHONPATH": path_with(triton),
        },
        capture_output=True,
        text=True,
        cwd=HERE.parents[1],
    )
