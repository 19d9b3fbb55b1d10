"""What tests and benchmarks need to know about an operator, kept beside the operator.

A test or a benchmark that loops over `all_specs()` covers every operator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

__all__ = ["EXACT", "KINDS", "Spec", "all_specs", "features", "scores_alone"]

_OPERATORS = (
    "cls_importance",
    "top_k_sorted",
    "relative_scores",
    "ranked",
    "picked_sorted",
    "gather_rows",
    "cosine_gram",
    "dedup",
    "column_importance",
    "text_relevance",
    "row_max_cosine",
    "greedy_select",
)

EXACT = 0.0
"""Tolerance of operators that only compare, copy or count: every bit must agree."""

KINDS = ("random", "clustered", "constant", "zero", "near-tie")


@dataclass(frozen=True, slots=True)
class Spec:
    """One algorithm of an operator, its reference, and inputs on which they must agree."""

    name: str
    """The operator's."""

    op: Callable[..., Any]
    """Public function: checks its arguments, then kernel or reference."""

    reference: Callable[..., Any]
    """Plain torch with the same signature; the definition of the result."""

    launcher: Callable[..., Any]
    """Runs the kernels, same signature."""

    registered: Callable[..., Any]
    """`torch.ops.vtprune.<name>`, same arguments."""

    make_inputs: Callable[..., dict[str, Any]]
    """`make_inputs(kind, size, dtype, device)` with a kind of `KINDS`: arguments by name. `size` is
    the number of tokens of a segment; `make_inputs(..., large=True)` has the shapes of production
    (16 heads of 64, width 1024), otherwise narrow ones that an interpreter can afford."""

    tolerance: Mapping[torch.dtype, float]
    """Largest absolute difference allowed between kernel and reference, by dtype of the input. Each
    operator says where its numbers come from."""

    case: str = ""
    """Which of the operator's algorithms the inputs choose, if it has several."""

    @property
    def id(self) -> str:
        """Name of the operator and the case, as in `greedy_select-coverage`."""
        return f"{self.name}-{self.case}" if self.case else self.name


def features(
    kind: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str, seed: int = 0
) -> torch.Tensor:
    """Draw rows of one of the `KINDS`: `[..., rows, channels]`."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(shape, generator=generator)
    if kind == "clustered":
        centre = torch.randn((*shape[:-2], 5, shape[-1]), generator=generator)
        which = torch.randint(5, (shape[-2],), generator=generator)
        rows = centre[..., which, :] + 0.05 * rows
    elif kind == "constant":
        rows = torch.full(shape, 0.75)
    elif kind == "zero":
        rows = torch.zeros(shape)
    elif kind == "near-tie":
        # Every other row repeats its neighbour but for one part in a thousand of one channel.
        rows[..., 1::2, :] = rows[..., 0 : shape[-2] - shape[-2] % 2 : 2, :]
        rows[..., 1::2, :1] *= 1.001
    return rows.to(device=device, dtype=dtype)


def scores_alone(
    kind: str, size: int, dtype: torch.dtype, device: torch.device | str, large: bool = False
) -> dict[str, Any]:
    """Make the inputs of an operator that takes scores alone, of three segments, or eight."""
    return {"scores": features(kind, (8 if large else 3, size), dtype, device)}


def all_specs() -> tuple[Spec, ...]:
    """Return the specs of every operator, in the order of the README's table; several in a row for
    an operator with several algorithms."""
    # Not at the top: the operators' modules import this one.
    modules = [import_module(f"vtprune_kernels.{name}") for name in _OPERATORS]
    return tuple(spec for module in modules for spec in module.SPECS)
