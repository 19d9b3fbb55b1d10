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
from absent_gpu import absent_gpu
from vtprune_kernels.spec import Spec, all_specs

pytestmark = pytest.mark.slow

TARGETS = (80, 90, 100)
"""Compute capabilities: Ampere (A100), Hopper (H100, H200), Blackwell (B200)."""

SHARED_PER_BLOCK = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
"""Bytes of shared memory that one program may have, from CUDA's table of compute capabilities."""

VARIANTS = [
    pytest.param(spec, dtype, id=f"{spec.id}-{str(dtype)[6:]}")
    for spec in all_specs()
    for dtype in (torch.bfloat16, torch.float32)
]
"""float16 makes the same code as bfloat16 but for the names of instructions."""


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
    """Collect the kernels that launches compile; nothing runs, results are garbage."""
    from triton.runtime.jit import JITFunction

    kernels: list[Any] = []
    run = JITFunction.run

    def warm_up(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        kernel = run(self, *args, grid=grid, warmup=True, **kwargs)
        if all(kernel is not known for known, _ in kernels):
            kernels.append((kernel, request.param))

    with absent_gpu(request.param, device=request.param) as patch:
        patch.setattr(JITFunction, "run", warm_up)
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
    for kernel, target in launches:
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


def _meta(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


HEADS, SCALE, LONGEST = 16, 0.1, 16384
EXTREMES = {
    **{
        f"cls_importance-head-{size}": lambda size=size: (
            "cls_importance",
            (_meta(2, 1 + LONGEST, HEADS * size), _meta(2, 1 + LONGEST, HEADS * size)),
            (HEADS, SCALE),
        )
        for size in (64, 72, 80, 96, 128)
    },
    **{
        f"column_importance-head-{size}": lambda size=size: (
            "column_importance",
            (_meta(LONGEST, HEADS * size), _meta(LONGEST, HEADS * size)),
            (HEADS, SCALE, _meta(257, dtype=torch.int32), LONGEST),
        )
        for size in (64, 72, 80, 96, 128)
    },
    "cosine_gram-8192-channels": lambda: ("cosine_gram", (_meta(256, 577, 8192),), ()),
    "top_k_sorted-4096": lambda: ("top_k_sorted", (_meta(2, 4096, dtype=torch.float32),), (64,)),
    "dedup-4096": lambda: ("dedup", (_meta(2, 4096, 4096, dtype=torch.float32),), (320, 8)),
    **{
        f"greedy_select-{objective}-{rows}": lambda objective=objective, rows=rows: (
            "greedy_select",
            (_meta(2, rows, rows, dtype=torch.float32),),
            (3, objective, _meta(2, rows, dtype=torch.float32)),
        )
        for objective, rows in (("dpp", 4096), ("coverage", 4096), ("demand", 4096))
    },
    "greedy_select-demand-2880-unequal-lengths": lambda: (
        "greedy_select",
        (_meta(2, 2880, 2880, dtype=torch.float32),),
        (
            *(3, "demand", _meta(2, 2880, dtype=torch.float32)),
            *(_meta(2, 2880, dtype=torch.bool), _meta(2, dtype=torch.int64)),
        ),
    ),
}


def _ragged(spec: Spec) -> dict[str, Any]:
    """Production shapes with a mask, counts and packed rows, where the operator takes them."""
    inputs = spec.make_inputs("zero", 576, torch.bfloat16, "cpu", large=True)
    if spec.name == "gather_rows":
        bounds = torch.arange(9, dtype=torch.int32)
        inputs["tensors"] = [tensor.flatten(0, 1) for tensor in inputs["tensors"]]
        inputs["out"] = [buffer.flatten(0, 1) for buffer in inputs["out"]]
        return {**inputs, "cu_seqlens": bounds * 576, "cu_kept": bounds * 64}
    if spec.name == "picked_sorted":
        return {**inputs, "firsts": torch.ones(8, dtype=torch.int64)}
    rows = inputs["visual"].shape[:1] if spec.name == "text_relevance" else (8, 576)
    inputs["valid"] = torch.ones(rows, dtype=torch.bool)
    if spec.name in ("top_k_sorted", "dedup", "greedy_select"):
        inputs["counts"] = torch.ones(8, dtype=torch.int32)
    return inputs


@pytest.mark.parametrize("spec", all_specs(), ids=lambda spec: spec.id)
@pytest.mark.parametrize("launches", [90], ids=["sm_90"], indirect=True)
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
def test_unequal_lengths_compile_without_spills(spec: Spec, launches: list[Any]) -> None:
    spec.launcher(**_ragged(spec))
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
    name, tensors, options = case()
    launcher = next(spec.launcher for spec in all_specs() if spec.name == name)
    launcher(*tensors, *options)
    _check(launches, request.node.callspec.id)
