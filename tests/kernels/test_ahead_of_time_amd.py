"""Compile the kernels as their launchers would for AMD's GPUs, by the compiler in Triton's wheel.

What `test_ahead_of_time.py` is for NVIDIA's. No AMD GPU has run them: what is shown here is that
they compile, fit, and pass data between threads by barriers that AMD's memory model takes for such.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import triton
from absent_gpu import compiled_for
from launch_shapes import EXTREMES, VARIANTS, launch_extreme, ragged
from nightly import NIGHTLY
from vtprune_kernels.spec import Spec, all_specs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION"),
]

TARGETS = [
    pytest.param("gfx942", id="gfx942"),  # MI300X, MI325X
    *(
        pytest.param(name, id=name, marks=NIGHTLY)
        for name in ("gfx90a", "gfx950", "gfx1100", "gfx1201")  # MI250, MI350, RX 7900, RX 9070
    ),
]
MOST_SHARED = 64 * 1024
"""Bytes of LDS that one workgroup may have on all of them; on gfx950 it may have more."""


SPILL_ON_RADEON = ("column_importance", "text_relevance")
"""Operators whose kernels spill there, of towers in float32."""


@pytest.fixture(params=TARGETS)
def launches(request: pytest.FixtureRequest) -> Iterator[list[Any]]:
    """Collect the kernels that launches compile."""
    name: str = request.param
    with compiled_for(name, device=int(name[3:], 16)) as kernels:
        yield kernels


def _check(launches: list[Any]) -> None:
    """Print what each kernel takes, and fail where it takes more than a target has."""
    assert launches
    for kernel in launches:
        found = {name: _number(kernel, name) for name in ("vgpr_count", "vgpr_spill_count")}
        scratch = _number(kernel, "private_segment_fixed_size")
        metadata = kernel.metadata
        print(  # noqa: T201
            f"\n| `{metadata.name}` | {metadata.target.arch} | {metadata.num_warps} "
            f"| {found['vgpr_count']} | {metadata.shared} | Triton {triton.__version__} |"
        )
        assert found["vgpr_spill_count"] == scratch == 0, metadata.name
        assert metadata.shared <= MOST_SHARED, metadata.name
        _check_barriers(kernel)


def _number(kernel: Any, name: str) -> int:
    found = re.search(rf"\.{name}:\s+(\d+)", kernel.asm["amdgcn"])
    assert found, name
    return int(found[1])


def _check_barriers(kernel: Any) -> None:
    """Threads pass data through global memory, so `tl.debug_barrier` has to order that too. AMD's
    barriers order none by themselves, and Triton's own, between uses of shared memory, need not."""
    ours = len(re.findall(r"\b(?:gpu\.barrier|ttg\.barrier all)\b", kernel.asm["ttgir"]))
    fenced = re.findall(
        r'fence syncscope\("workgroup"\) release.*\n'
        r"(?:.*@llvm\.amdgcn\.s\.barrier.*\n)+"  # two halves on gfx12
        r'.*fence syncscope\("workgroup"\) acquire',
        kernel.asm["llir"],
    )
    assert len(fenced) >= ours, kernel.metadata.name


@pytest.mark.parametrize(("spec", "dtype"), VARIANTS)
def test_kernel_compiles_without_spills(
    spec: Spec, dtype: torch.dtype, launches: list[Any], request: pytest.FixtureRequest
) -> None:
    if dtype == torch.float32 and "gfx1" in request.node.name and spec.name in SPILL_ON_RADEON:
        pytest.skip("Radeon's matrix units take no float32")
    spec.launcher(**spec.make_inputs("zero", 576, dtype, "cpu", large=True))
    _check(launches)


@NIGHTLY
@pytest.mark.parametrize("spec", all_specs(), ids=lambda spec: spec.id)
def test_unequal_lengths_compile_without_spills(spec: Spec, launches: list[Any]) -> None:
    spec.launcher(**ragged(spec))
    _check(launches)


@NIGHTLY
@pytest.mark.parametrize("case", EXTREMES.values(), ids=EXTREMES)
def test_extreme_shapes_compile_without_spills(case: Any, launches: list[Any]) -> None:
    launch_extreme(case)
    _check(launches)
