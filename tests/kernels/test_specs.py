"""Every operator: its kernels in Triton's interpreter against its reference, and its registration.

The interpreter runs one program after the other in NumPy, so the inputs are narrow.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from vtprune_kernels.spec import KINDS, Spec, all_specs

SPECS = [pytest.param(spec, id=spec.name) for spec in all_specs()]
DTYPES = [pytest.param(dtype, id=str(dtype)[6:]) for dtype in all_specs()[0].tolerance]

SIZES = {
    "cosine_gram": (1, 2, 63, 65),
    "dedup": (1, 2, 63, 150),
    "column_importance": (1, 2, 63, 200),
    "row_max_cosine": (1, 2, 63, 65),
    "greedy_select": (1, 2, 3, 63, 64, 65),  # each third one has the same objective
}
"""Tokens of a segment, where the interpreter takes seconds for more."""

AWKWARD = [
    pytest.param(spec, size, id=f"{spec.name}-{size}")
    for spec in all_specs()
    for size in SIZES.get(spec.name, (1, 2, 63, 577, 1000))
]


def _copy(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.clone()
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _check(spec: Spec, inputs: dict[str, Any], dtype: torch.dtype) -> None:
    found = spec.launcher(**inputs)
    # The reference gets buffers of its own to write to.
    wanted = spec.reference(**{name: _copy(value) for name, value in inputs.items()})
    if isinstance(found, torch.Tensor):
        found, wanted = [found], [wanted]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=spec.tolerance[dtype])


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("interpreted", "poisoned")
def test_kernel_agrees_with_reference_on_every_kind_of_input(spec: Spec, kind: str) -> None:
    _check(spec, spec.make_inputs(kind, 63, torch.bfloat16, "cpu"), torch.bfloat16)


@pytest.mark.parametrize(("spec", "size"), AWKWARD)
@pytest.mark.usefixtures("interpreted", "poisoned")
def test_kernel_agrees_with_reference_at_awkward_sizes(spec: Spec, size: int) -> None:
    _check(spec, spec.make_inputs("random", size, torch.float32, "cpu"), torch.float32)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.usefixtures("interpreted", "poisoned")
def test_kernel_agrees_with_reference_in_every_dtype(spec: Spec, dtype: torch.dtype) -> None:
    _check(spec, spec.make_inputs("near-tie", 50, dtype, "cpu"), dtype)


@pytest.mark.parametrize("spec", SPECS)
def test_registration_passes_opcheck(spec: Spec) -> None:
    inputs = spec.make_inputs("random", 17, torch.float32, "cpu")
    torch.library.opcheck(spec.registered, (), inputs)


@pytest.mark.parametrize("spec", SPECS)
def test_public_operator_is_the_reference_on_a_cpu(spec: Spec) -> None:
    inputs = spec.make_inputs("clustered", 40, torch.float32, "cpu")
    found = spec.op(**inputs)
    wanted = spec.reference(**{name: _copy(value) for name, value in inputs.items()})
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
