"""The GPU benchmark's dry run: every operator and every line but a GPU's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from vtprune_kernels.spec import all_specs

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU it is no dry run")
def test_kernels_benchmark_runs_through_every_operator() -> None:
    results = ROOT / "benchmarks" / "results" / "kernels-gpu.csv"
    before = results.read_bytes() if results.exists() else None
    run = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "kernels.py"],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert "dry run" in run.stdout
    for spec in all_specs():
        assert f"{spec.name} " in run.stdout
    assert run.stdout.count("agrees with the reference") >= len(all_specs())
    assert (results.read_bytes() if results.exists() else None) == before
