"""Tensors of the GPU that is not there: each says that it is on `cuda:0` and keeps its numbers in a
tensor of the CPU, where every operator computes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch.utils._pytree import tree_leaves

__all__ = ["CARD", "OnCard", "host", "memory_of", "on_card", "tensors_in"]

CARD = torch.device("cuda:0")


class _Device(Protocol):
    """What runs operators, and notes what a GPU would not take."""

    def run(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any: ...
    def note(self, fault: str) -> None: ...


class OnCard(torch.Tensor):
    """A tensor on the card that is not there."""

    active: ClassVar[_Device | None] = None
    """The card whose context this is."""

    data_on_host: torch.Tensor
    """Its numbers."""

    device = property(lambda _: CARD)  # type: ignore[assignment]
    is_cuda = property(lambda _: True)  # type: ignore[assignment]
    is_cpu = property(lambda _: False)  # type: ignore[assignment]
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, numbers: torch.Tensor) -> OnCard:
        # For C++ it is on a CPU: a build without CUDA cannot index a tensor elsewhere.
        made: OnCard = torch.Tensor._make_wrapper_subclass(
            cls,
            numbers.shape,
            strides=numbers.stride(),
            storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype,
            device="cpu",
        )
        made.data_on_host = numbers
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"OnCard({self.data_on_host!r})"

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        assert cls.active is not None, "nothing runs on a card outside of its context"
        return cls.active.run(func, args, kwargs or {})


def on_card(value: Any, given: Sequence[OnCard]) -> Any:
    """Return what an operator returns, given the tensors on the card among its arguments."""
    if type(value) is not torch.Tensor:
        return value
    for each in given:
        if each.data_on_host is value:
            return each
    for each in given:
        if memory_of(each.data_on_host) == memory_of(value):  # a view is as free as its base
            with torch.inference_mode(each.is_inference()):
                return OnCard(value)
    return OnCard(value)


def host(value: Any) -> Any:
    """Return the numbers of a tensor on the card; anything else as it is."""
    return value.data_on_host if isinstance(value, OnCard) else value


def tensors_in(values: Any) -> list[torch.Tensor]:
    """Return the tensors among arguments or results."""
    return [each for each in tree_leaves(values) if isinstance(each, torch.Tensor)]


def memory_of(tensor: torch.Tensor) -> int:
    """Return what tells a tensor's memory from another's."""
    return tensor.untyped_storage()._cdata
