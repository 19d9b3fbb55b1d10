"""What torch says of its operators, for the GPU that is not there."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch
from pretend_tensor import memory_of, tensors_in

__all__ = ["COMPOSITE", "Step", "is_made_of_others", "made_by", "spoil", "written_by"]

_WHOLE = {
    *("linear", "scaled_dot_product_attention", "layer_norm", "rms_norm", "item", "is_nonzero"),
    "one_hot",  # which in parts would count on the host
}
"""Operators made of others that run as they are, to give the bits that they give on a CPU."""

COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
"""Under which an operator that is made of others is found."""


class Step(NamedTuple):
    """An operator that ran on tensors of the host."""

    func: Any
    args: Any
    kwargs: Any
    made: list[torch.Tensor]
    """What it made of new memory."""

    written: list[torch.Tensor]
    """The arguments that it wrote."""


def spoil(*tensors: torch.Tensor) -> None:
    """Write to tensors of the host what nobody expects."""
    with torch.inference_mode():
        for each in tensors:
            if each.dtype.is_floating_point:
                each.fill_(torch.nan)
            elif each.dtype != torch.bool:
                each.fill_(torch.iinfo(each.dtype).max // 3)


@cache
def is_made_of_others(func: Any) -> bool:
    """Return whether an operator calls others on every device, some of which may wait."""
    if func.overloadpacket.__name__ in _WHOLE:
        return False
    has: bool = torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), COMPOSITE)
    return has


def made_by(result: Any, args: Any, kwargs: Any) -> list[torch.Tensor]:
    """Return the tensors in an operator's result whose memory is new."""
    known = {memory_of(each) for each in tensors_in((args, kwargs))}
    return [each for each in tensors_in(result) if memory_of(each) not in known]


@cache
def _written_places(func: Any) -> tuple[tuple[int, str], ...]:
    """Return index and name of the arguments that an operator writes."""
    if not isinstance(func, torch._ops.OpOverload):
        return ()
    named = enumerate(func._schema.arguments)
    return tuple((i, it.name) for i, it in named if it.alias_info and it.alias_info.is_write)


def written_by(func: Any, args: Any, kwargs: Any) -> list[torch.Tensor]:
    """Return the tensors among an operator's arguments that it writes."""
    given = (
        args[index] if index < len(args) else kwargs.get(name)
        for index, name in _written_places(func)
    )
    return tensors_in([*given])
