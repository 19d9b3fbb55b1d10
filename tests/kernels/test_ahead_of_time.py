"""Compile the kernels exactly as their launchers would, for GPUs that are not there.

A driver that only names a target stands in for CUDA's (`absent_gpu`), so Triton specialises a
launch on its arguments and compiles it to machine code as usual, and stops short of loading it.
`pytest -s` prints the table of `kernels/README.md`.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
from absent_gpu import compiled_for
from launch_shapes import EXTREMES, VARIANTS, launch_extreme, ragged
from vtprune_kernels.spec import Spec, all_specs

pytestmark = pytest.mark.slow

TARGETS = (80, 90, 100)
"""Compute capabilities: Ampere (A100), Hopper (H100, H200), Blackwell (B200)."""

SHARED_PER_BLOCK = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
"""Bytes of shared memory that one program may have, from CUDA's table of compute capabilities."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """What one kernel takes on one target."""

    kernel: str
    target: int
    warps: int
    registers: int
    """Per thread."""
    spilled: int
    """Bytes of local memory per thread: spilled registers, and arrays that did not fit."""
    shared: int
    """Bytes of shared memory per program."""

    def __str__(self) -> str:
        return (
            f"| `{self.kernel}` | sm_{self.target} | {self.warps} | {self.registers} "
            f"| {self.spilled} | {self.shared} |"
        )


@pytest.fixture(params=TARGETS, ids=lambda capability: f"sm_{capability}")
def launches(request: pytest.FixtureRequest) -> Iterator[list[Any]]:
    """Collect the kernels that launches compile."""
    with compiled_for(f"sm_{request.param}", device=request.param) as kernels:
        yield kernels


def _resources(kernel: Any, target: int) -> Compiled:
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        output = subprocess.run(
            [tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", output)
    assert found, output
    registers, stack, local = map(int, found.groups())
    metadata = kernel.metadata
    return Compiled(
        metadata.name, target, metadata.num_warps, registers, stack + local, metadata.shared
    )


def _check(launches: list[Any], inputs: str) -> None:
    """Print what each kernel takes, and fail where it takes more than a target has."""
    assert launches
    for kernel in launches:
        target = kernel.metadata.target.arch
        compiled = _resources(kernel, target)
        print(f"\n{compiled} {inputs} | Triton {triton.__version__} |")  # noqa: T201
        assert not compiled.spilled, compiled
        assert compiled.shared <= SHARED_PER_BLOCK[target], compiled


@pytest.mark.parametrize(("spec", "dtype"), VARIANTS)
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
def test_kernel_compiles_without_spills(
    spec: Spec, dtype: torch.dtype, launches: list[Any]
) -> None:
    # Inputs of production shapes, on the CPU: a launch looks at strides and dtypes only.
    spec.launcher(**spec.make_inputs("zero", 576, dtype, "cpu", large=True))
    _check(launches, str(dtype)[6:])


@pytest.mark.parametrize("spec", all_specs(), ids=lambda spec: spec.id)
@pytest.mark.parametrize("launches", [90], ids=["sm_90"], indirect=True)
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
def test_unequal_lengths_compile_without_spills(spec: Spec, launches: list[Any]) -> None:
    spec.launcher(**ragged(spec))
    _check(launches, "unequal lengths")


@pytest.mark.parametrize("spec", all_specs(), ids=lambda spec: spec.id)
@pytest.mark.parametrize("launches", [90], ids=["sm_90"], indirect=True)
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
def test_one_row_compiles(spec: Spec, launches: list[Any]) -> None:
    """A size of 1 is a constant to Triton's compiler, which then compiles other code."""
    spec.launcher(**spec.make_inputs("zero", 1, torch.float32, "cpu"))
    assert launches


@pytest.mark.parametrize("case", EXTREMES.values(), ids=EXTREMES)
@pytest.mark.parametrize("launches", [90], ids=["sm_90"], indirect=True)
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
def test_extreme_shapes_compile_without_spills(
    case: Any, launches: list[Any], request: pytest.FixtureRequest
) -> None:
    launch_extreme(case)
    _check(launches, request.node.callspec.id)
