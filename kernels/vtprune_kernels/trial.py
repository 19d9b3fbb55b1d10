"""Compare the operators with their references on the GPU at hand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch

from vtprune_kernels.spec import Spec, all_specs

__all__ = ["INPUTS", "Case", "disagreement", "trial"]


class Case(NamedTuple):
    """Inputs of an operator: how many tokens, drawn how, in which type."""

    size: int
    kind: str
    dtype: torch.dtype


INPUTS = (
    Case(63, "clustered", torch.bfloat16),
    Case(577, "clustered", torch.bfloat16),
    Case(577, "near-tie", torch.float32),
    Case(1000, "random", torch.float16),
)
"""Fewer tokens than a block, a few blocks, as many as a large image's; ties among them."""


def trial(device: torch.device, specs: Iterable[Spec] | None = None) -> Iterator[tuple[str, str]]:
    """Yield each operator that fails on some of `INPUTS`, and how; the first failure of each."""
    for spec in all_specs() if specs is None else specs:
        found = (disagreement(spec, case, device) for case in INPUTS)
        why = next(filter(None, found), None)
        if why is not None:
            yield spec.id, why


def disagreement(spec: Spec, case: Case, device: torch.device) -> str | None:
    """Return how an operator on `device` differs from its reference on the CPU; None if it does
    not. An operator that raises differs too."""
    inputs = spec.make_inputs(case.kind, case.size, case.dtype, "cpu")
    try:
        moved = {name: _to(value, device) for name, value in inputs.items()}
        found = _to(spec.op(**moved), torch.device("cpu"))  # waits for the GPU
        wanted, atol = spec.reference(**inputs), spec.tolerance[case.dtype]
        torch.testing.assert_close(found, wanted, rtol=0, atol=atol, equal_nan=True)
    except Exception as error:  # whatever it is, it fails only this check
        return f"{type(error).__name__}: {error}"
    return None


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device, copy=True)
    return [_to(item, device) for item in value] if isinstance(value, (list, tuple)) else value
