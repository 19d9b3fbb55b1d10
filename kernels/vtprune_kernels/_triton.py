"""Triton itself, or a stand-in without it, and the rule that says when a kernel runs.

`vtprune_kernels` imports on machines without Triton; the references then do all the work. vLLM's
`vllm.triton_utils` is not used: on a CPU build it replaces `triton.jit` by something that does
nothing even where Triton is installed, and the interpreter needs the real one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import torch

if TYPE_CHECKING:
    import triton
    import triton.language as tl

    HAS_TRITON = True
else:
    try:
        import triton
        import triton.language as tl

        HAS_TRITON = True
    except ImportError:
        from types import SimpleNamespace

        HAS_TRITON = False
        # Just enough to define the kernels below each launcher, which never run.
        triton = SimpleNamespace(jit=lambda function=None, **_: function or (lambda each: each))
        tl = SimpleNamespace(constexpr=lambda value: value, int32=None, int64=None)

__all__ = [
    "HAS_TRITON",
    "INTERPRETED",
    "flags",
    "implementation",
    "next_power_of_2",
    "register_op",
    "size_class",
    "tl",
    "traced_on_cpu",
    "triton",
    "use_triton",
]

INTERPRETED = HAS_TRITON and os.environ.get("TRITON_INTERPRET") == "1"
"""Kernels run in Triton's interpreter, on CPU tensors; read once, as Triton does at import."""

Result = TypeVar("Result")

_LIBRARY = torch.library.Library("vtprune", "FRAGMENT")


def use_triton(*tensors: torch.Tensor) -> bool:
    """Whether operators on these tensors run the kernel rather than the reference."""
    return INTERPRETED or (HAS_TRITON and all(tensor.is_cuda for tensor in tensors))


def traced_on_cpu(tensor: torch.Tensor) -> bool:
    """Whether a compiler traces, or a dispatch mode watches, what runs on a CPU. It cannot trace a
    reference that sets the number of threads or loops over sizes, and what counts on a GPU is the
    operator, so that has to be one opaque step."""
    if tensor.is_cuda:
        return False
    return torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0


def flags(valid: torch.Tensor | None, otherwise: torch.Tensor) -> torch.Tensor:
    """Return a mask as bytes for a kernel; without one, `otherwise`, a pointer it does not read."""
    return otherwise if valid is None else valid.contiguous().view(torch.uint8)


def implementation(device: torch.device) -> str:
    """Return which implementation runs on `device` and why, for a log line at start."""
    if INTERPRETED:
        return "triton kernels in the interpreter, because TRITON_INTERPRET=1"
    if device.type != "cuda":
        return f"torch references, because the device is {device.type}"
    if not HAS_TRITON:
        return "torch references, because triton is not installed"
    return "triton kernels"


def next_power_of_2(number: int) -> int:
    """The smallest power of two that is at least `number` (and at least 1)."""
    return 1 << max(0, number - 1).bit_length()


def size_class(number: int, least: int = 64) -> int:
    """The power of two that a kernel's block has for `number` elements, at least `least`.

    A block is a constant to the compiler: each class costs one compilation, in the first call of
    that size. Numbers that only bound masks are `do_not_specialize` in every kernel, so that
    another k or N of the same class compiles nothing.
    """
    return max(least, next_power_of_2(number))


def register_op(
    name: str,
    launcher: Callable[..., Result],
    reference: Callable[..., Result],
    fake: Callable[..., Result],
    writes: tuple[str, ...] = (),
) -> Callable[..., Result]:
    """Define `torch.ops.vtprune.<name>` and return it.

    Dynamo, the compilers behind it and CUDA graphs take the operator as one opaque step. Plain
    `Library` calls rather than `torch.library.custom_op`, whose wrapper costs more host time per
    call than some of these kernels take.

    Args:
        name: name of the operator.
        launcher: runs the kernels, on CUDA tensors, or on CPU tensors in the interpreter. The
            schema is inferred from its signature, which `reference` and `fake` share.
        reference: plain torch, for CPU tensors.
        fake: returns an empty result of the right shape and dtype.
        writes: arguments that are written to.
    """
    schema = torch.library.infer_schema(launcher, op_name=name, mutates_args=writes)
    _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _LIBRARY.impl(name, launcher, "CUDA")
    _LIBRARY.impl(name, launcher if INTERPRETED else reference, "CPU")
    torch.library.register_fake(f"vtprune::{name}", fake, lib=_LIBRARY)
    operator: Callable[..., Result] = getattr(torch.ops.vtprune, name).default
    return operator
