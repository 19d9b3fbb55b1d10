"""vLLM's matrix product for CPUs takes rows whose numbers lie apart.

That of 0.31 to 0.33 ends the engine at them, with vtprune or without: one tile of a picture of
Llama 4's, alone in a step, is made into such rows. Several are copied in passing.

A module of its own, because what compiles a model reads the source of what it calls again later, by
the name of its module.
"""

from __future__ import annotations

from typing import Any

from vllm import _custom_ops as ops

__all__ = ["multiply_any_rows"]

_multiply = ops.onednn_mm


def _multiplied(handler: Any, rows: Any, bias: Any) -> Any:
    return _multiply(handler, rows.contiguous(), bias)


def multiply_any_rows() -> None:
    """Have it take them."""
    ops.onednn_mm = _multiplied
