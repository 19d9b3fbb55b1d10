"""What is counted without a GPU for the estimates of `kernels/README.md`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from vllm_process import environment

ROOT = Path(__file__).parents[2]

with pytest.MonkeyPatch.context() as path:
    # Not for longer: transformers looks for a package `kernels`.
    path.syspath_prepend(ROOT / "benchmarks")
    import dedup_rounds
    import greedy_rounds
    import selection_sum


@pytest.mark.parametrize(("parts", "rounds"), [(4, 1), (1, 2)])
def test_a_duplicate_costs_a_lazy_selection_a_round_in_its_part(parts: int, rounds: int) -> None:
    gram = torch.eye(4)
    gram[0, 1] = gram[1, 0] = 1.0  # so row 1 gains nothing after row 0
    weight = torch.tensor([5.0, 4.0, 3.0, 2.0])
    assert greedy_rounds.rounds(gram, weight, 2, "coverage", parts) == rounds


def test_a_row_is_read_for_each_column_that_is_covered_better() -> None:
    gram = torch.eye(4)
    gram[0, 1] = gram[1, 0] = gram[1, 2] = gram[2, 1] = 0.5
    weight = torch.tensor([5.0, 4.0, 3.0, 2.0])
    # 1 covers 0, itself and 2; then 0 only itself, as 2 does
    assert greedy_rounds.raised(gram, weight, 3, "demand") == [3, 1]


def test_a_row_is_looked_up_when_no_listed_neighbour_is_in_b(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gram = torch.eye(4)
    gram[0, 2] = gram[2, 0] = gram[1, 3] = gram[3, 1] = 0.5  # a is 0 and 2, b is 1 and 3
    looking, listed = dedup_rounds.passes(gram, 2, 2)
    assert (looking, listed) == (0, [1, 1, 1, 0, 0, 1, 0, 0, 1, 1])
    monkeypatch.setattr(dedup_rounds, "NEAREST", 1)
    looking, looked = dedup_rounds.passes(gram, 2, 2)
    assert (looking, looked) == (1, [1, 1, 1, 1, 1, 1, 0, 0, 1, 1])


@pytest.mark.slow
def test_the_loops_of_dedup_are_those_whose_passes_are_counted() -> None:
    folders = [str(ROOT / "environment"), *sys.path]
    run = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "dedup_rounds.py"],
        env=environment(PYTHONPATH=os.pathsep.join(folders)),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    rows = re.findall(r"^\| (five tight clusters|smooth) \|(.*)\|$", run.stdout, re.MULTILINE)
    assert [kind for kind, _ in rows] == ["five tight clusters", "smooth"]
    for _, cells in rows:
        _, _, rounds, *_, issued = (int(cell.replace(",", "")) for cell in cells.split("|"))
        assert rounds == 64  # eight a round, of 512
        assert 90_000 < issued < 150_000


@pytest.mark.parametrize("priced", [name for name in selection_sum.PRICES if ":" in name])
def test_a_selection_sums_up_to_what_the_readme_says(priced: str) -> None:
    method, _, kind = re.split("[:,] ?", priced + ", ")[:3]
    found = selection_sum.summed(priced)
    rows = re.findall(rf"^\| `{method}`(.*)$", selection_sum.README.read_text(), re.MULTILINE)
    (row,) = [row for row in rows if kind in row and "**" in row]
    if launches := re.search(r"\| (\d+), of which", row):
        assert int(launches[1]) == sum(found.launches.values())
    least, most = (5 * round(bound / 5) for bound in (found.least, found.most))
    assert f"**{least}–{most}**" in row
