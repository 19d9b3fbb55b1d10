"""Every operator: its kernels in Triton's interpreter against its reference, and its registration.

The interpreter runs one program after the other in NumPy, so the inputs are narrow.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from vtprune_kernels.spec import KINDS, Spec, all_specs

SPECS = [pytest.param(spec, id=spec.id) for spec in all_specs()]
DTYPES = [pytest.param(dtype, id=str(dtype)[6:]) for dtype in all_specs()[0].tolerance]

AWKWARD = [
    *((kind, size) for size in (1, 2, 63) for kind in KINDS),
    *(("clustered", 577), ("near-tie", 577)),
    *(("random", 1000), ("constant", 320), ("zero", 320)),
]
"""Every kind at every size would be minutes in the interpreter: large ones take their turns."""


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
@pytest.mark.parametrize(("kind", "size"), AWKWARD)
@pytest.mark.usefixtures("interpreted", "poisoned", "coarse")
def test_kernel_agrees_with_reference(spec: Spec, kind: str, size: int) -> None:
    dtype = torch.bfloat16 if size == 63 else torch.float32
    _check(spec, spec.make_inputs(kind, size, dtype, "cpu"), dtype)


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.usefixtures("interpreted", "poisoned")
def test_kernel_agrees_with_reference_in_the_tiles_of_a_gpu(spec: Spec) -> None:
    """Sizes that take several of each."""
    size = {"cls_importance": 300, "text_relevance": 150, "column_importance": 150}
    inputs = spec.make_inputs("random", size.get(spec.name, 70), torch.float32, "cpu")
    _check(spec, inputs, torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.usefixtures("interpreted", "poisoned", "rows_share_programs")
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
