"""What is compiled for GPUs that are not there: production shapes, and those at every bound."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from vtprune_kernels.spec import Spec, all_specs

__all__ = ["EXTREMES", "VARIANTS", "launch_extreme", "ragged"]

VARIANTS = [
    pytest.param(spec, dtype, id=f"{spec.id}-{str(dtype)[6:]}")
    for spec in all_specs()
    for dtype in (torch.bfloat16, torch.float32)
]
"""float16 makes the same code as bfloat16 but for the names of instructions."""


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


def launch_extreme(case: Any) -> None:
    """Launch one of `EXTREMES`."""
    name, tensors, options = case()
    launcher = next(spec.launcher for spec in all_specs() if spec.name == name)
    launcher(*tensors, *options)


def ragged(spec: Spec) -> dict[str, Any]:
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
