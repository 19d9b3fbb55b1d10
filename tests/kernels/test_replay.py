"""`python -m vtprune_kernels.replay` says whether a case agrees, and where it first does not."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from vtprune_kernels.replay import first_difference

SABOTAGED = """
import dataclasses, sys
from vtprune_kernels import replay

def two_wrong(**inputs):
    kept = spec.reference(**inputs)
    kept[1, 3:5] += 1
    return kept

spec, = (each for each in replay.all_specs() if each.name == "dedup")
wrong = dataclasses.replace(spec, launcher=two_wrong)
replay.all_specs = lambda: (wrong,)
sys.exit(replay.main(["dedup", "random", "63"]))
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True)


@pytest.mark.slow
def test_a_case_that_agrees() -> None:
    done = run("-m", "vtprune_kernels.replay", "top_k_sorted", "near-tie", "63")
    assert (done.returncode, done.stdout) == (0, "kernel and reference agree\n"), done.stderr


@pytest.mark.slow
def test_the_first_difference_has_its_place_and_both_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    done = run("-c", SABOTAGED)
    assert done.returncode == 1, done.stderr
    assert "result 0 (2, 7): first at segment 1, row 3: kernel " in done.stdout
    assert "; 2 of 14 differ, by up to 1 (tolerance 0)" in done.stdout


@pytest.mark.parametrize(
    ("kernel", "reference", "index"),
    [
        ([[1.0, 2.0]], [[1.0, 2.0]], None),
        ([[1.0, 2.0]], [[1.0, 2.4]], None),
        ([[1.0, 2.0]], [[1.0, 2.6]], (0, 1)),
        ([[torch.nan, 2.0]], [[torch.nan, 2.0]], None),
        ([[torch.nan, 2.0]], [[1.0, 2.0]], (0, 0)),
        ([[torch.inf, 2.0]], [[torch.inf, 2.0]], None),
        ([[torch.inf, 2.0]], [[-torch.inf, 2.0]], (0, 0)),
    ],
)
def test_what_counts_as_a_difference(
    kernel: list[list[float]], reference: list[list[float]], index: tuple[int, ...] | None
) -> None:
    found = first_difference(torch.tensor(kernel), torch.tensor(reference), 0.5)
    assert (found and found[0]) == index
