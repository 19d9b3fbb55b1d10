"""The table of operators in `kernels/README.md` says what their signatures and specs say."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from vtprune_kernels.spec import EXACT, Spec, all_specs

README = (Path(__file__).parents[2] / "kernels" / "README.md").read_text()
TABLE = {
    name: [cell.strip() for cell in cells.split("|")]
    for name, cells in re.findall(r"^\| `(\w+)` \|(.*)\|$", README, re.MULTILINE)
    if not name.startswith("_") and not name.endswith("_kernel")
}


def test_the_table_names_every_operator() -> None:
    assert set(TABLE) == {spec.name for spec in all_specs()}


@pytest.mark.parametrize("spec", all_specs(), ids=lambda spec: spec.id)
def test_an_operator_is_what_its_row_says(spec: Spec) -> None:
    _, _, tolerance, valid, counts, others = TABLE[spec.name]
    taken = inspect.signature(spec.op).parameters
    assert {valid, counts} <= {"yes", ""}
    assert (valid == "yes", counts == "yes") == ("valid" in taken, "counts" in taken)
    (allowed,) = set(spec.tolerance.values())
    assert (EXACT if tolerance == "exact" else float(tolerance)) == allowed
    named = set(re.findall(r"`(\w+)`", others))
    assert named <= set(taken), "the row names an argument that the operator does not take"
    ragged = {name for name in taken if re.search("^cu_|_bounds$|^valid_", name)}
    assert ragged <= named, "the row leaves out an argument for unequal lengths"
