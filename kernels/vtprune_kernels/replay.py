"""Run one case of an operator by kernel and by reference, and show where they first differ.

    python -m vtprune_kernels.replay dedup near-tie 577 [--dtype bfloat16] [--large]
    python -m vtprune_kernels.replay greedy_select-coverage clustered 577

On a GPU if there is one, else in Triton's interpreter. The exit code is 1 if they differ by more
than the operator's tolerance.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

import torch

from vtprune_kernels._triton import INTERPRETED
from vtprune_kernels.spec import KINDS, Spec, all_specs

__all__ = ["first_difference", "main"]


def first_difference(
    kernel: torch.Tensor, reference: torch.Tensor, tolerance: float
) -> tuple[tuple[int, ...], float, int] | None:
    """Return where two results first differ by more than a tolerance.

    Returns:
        The index (segment first, then row and column), the largest absolute difference, and how
        many elements differ; None if none does. NaN differs from everything but NaN.
    """
    one, other = kernel.double().cpu(), reference.double().cpu()
    apart = (one - other).abs()
    apart = apart.masked_fill(one.isnan() & other.isnan() | (one == other), 0.0)
    wrong = ~(apart <= tolerance)
    if not wrong.any():
        return None
    index = tuple(wrong.nonzero()[0].tolist())
    return index, float(apart.nan_to_num(torch.inf).max()), int(wrong.sum())


def _replay(spec: Spec, inputs: dict[str, Any], tolerance: float) -> list[str]:
    """Return one line for every result that differs."""
    copies = {name: _copy(value) for name, value in inputs.items()}
    kernel, reference = spec.launcher(**inputs), spec.reference(**copies)
    if isinstance(kernel, torch.Tensor):
        kernel, reference = [kernel], [reference]
    lines = []
    for number, (one, other) in enumerate(zip(kernel, reference, strict=True)):
        if (found := first_difference(one, other, tolerance)) is not None:
            index, largest, count = found
            place = ", ".join(
                f"{name} {position}"
                for name, position in zip(("segment", "row", "column"), index, strict=False)
            )
            lines.append(
                f"result {number} {tuple(one.shape)}: first at {place}: kernel "
                f"{one[index].item()}, reference {other[index].item()}; {count} of {one.numel()} "
                f"differ, by up to {largest:g} (tolerance {tolerance:g})"
            )
    return lines


def _copy(value: Any) -> Any:
    """Copy a buffer, so that the reference writes to its own."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    return [_copy(item) for item in value] if isinstance(value, list) else value


def main(argv: Sequence[str] | None = None) -> int:
    """Replay the case that the arguments name."""
    specs = {spec.id: spec for spec in all_specs()}
    parser = argparse.ArgumentParser("python -m vtprune_kernels.replay", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("operator", choices=specs)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("size", type=int, help="tokens of a segment")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--large", action="store_true", help="shapes of production")
    arguments = parser.parse_args(argv)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not INTERPRETED:
        # Triton reads it once, when it is imported.
        command = [sys.executable, "-m", "vtprune_kernels.replay", *(argv or sys.argv[1:])]
        os.execve(sys.executable, command, {**os.environ, "TRITON_INTERPRET": "1"})
    spec, dtype = specs[arguments.operator], getattr(torch, arguments.dtype)
    inputs = spec.make_inputs(arguments.kind, arguments.size, dtype, device, large=arguments.large)
    lines = _replay(spec, inputs, spec.tolerance[dtype])
    sys.stdout.write("\n".join(lines or ["kernel and reference agree"]) + "\n")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
