"""The functions of torch that make tensors on the GPU that is not there, or move them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pretend_gpu import Card
from pretend_memory import is_dense, is_pinned, pinned
from pretend_tensor import CARD, OnCard, host, tensors_in
from pretend_waits import READS
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

__all__ = ["Functions"]


class Functions(TorchFunctionMode):
    """A context, of one thread, in which `cuda` is a card that is not there."""

    def __init__(self, card: Card) -> None:
        """Store the card."""
        super().__init__()
        self._card = card

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        name, kwargs = getattr(func, "__name__", ""), dict(kwargs or {})
        if name in READS and isinstance(args[0], OnCard):
            self._card.waited(name)
            return func(host(args[0]), *args[1:], **kwargs)
        if name == "new_tensor" and isinstance(args[0], OnCard):
            self._card.waited("a tensor of numbers of the host")
        if name in ("to", "cpu", "cuda"):
            return self._moved(name, args[0], args[1:], kwargs)
        if name == "pin_memory":
            return args[0] if is_pinned(args[0]) else _pinned_copy(args[0])
        if name == "is_pinned":
            return is_pinned(args[0])
        # It fills memory of its own, on the device of what it is given.
        if name == "pad_sequence" and any(isinstance(it, OnCard) for it in tensors_in(args)):
            return self._card.runs(func)(*args, **kwargs)
        target, pins = kwargs.pop("device", None), kwargs.pop("pin_memory", False)
        made = func(*args, **kwargs) if target is None else self._made(func, args, kwargs, target)
        return pinned(made) if pins and not isinstance(made, OnCard) else made

    def _made(self, func: Any, args: Any, kwargs: Any, target: Any) -> Any:
        """Return what a function makes on a device."""
        on_card = torch.device(target).type == "cuda"
        if not on_card and not any(isinstance(it, OnCard) for it in tensors_in((args, kwargs))):
            return func(*args, **kwargs, device=target)
        made = func(*tree_map(host, list(args)), **tree_map(host, kwargs), device="cpu")
        if not on_card:
            return made
        if func.__name__ in ("tensor", "as_tensor", "asarray"):
            self._card.waited("a tensor of numbers of the host")
        named = {**tree_map(host, kwargs), "device": "cpu"}
        self._card.ran(func, tree_map(host, list(args)), named, made)
        return OnCard(made)

    def _moved(self, name: str, tensor: torch.Tensor, args: Sequence[Any], kwargs: Any) -> Any:
        """Return a tensor elsewhere, or as another dtype."""
        target, rest = {"cpu": torch.device("cpu"), "cuda": CARD}.get(name), []
        for each in (*args, kwargs.pop("device", None), kwargs.pop("other", None)):
            if isinstance(each, (str, torch.device)):
                target = torch.device(each)
            elif isinstance(each, torch.Tensor):
                target, kwargs["dtype"] = each.device, each.dtype
            elif isinstance(each, torch.dtype):
                kwargs["dtype"] = each
            elif isinstance(each, bool):
                rest.append(each)
            else:
                assert each is None, each
        kwargs |= zip(("non_blocking", "copy"), rest, strict=False)
        at_once = not kwargs.pop("non_blocking", False)
        to_card = tensor.is_cuda if target is None else target.type == "cuda"
        if to_card and not tensor.is_cuda:
            tensor = self._sent(tensor, at_once)
        elif tensor.is_cuda and not to_card:
            self._card.waited("a copy to the host")
            tensor = host(tensor).clone()
        return tensor.to(**kwargs) if kwargs else tensor

    def _sent(self, tensor: torch.Tensor, at_once: bool) -> OnCard:
        """Return a tensor of the host on the card, where it gets another dtype if it does."""
        on_card = tensor.clone()
        if at_once or not is_pinned(tensor):
            self._card.waited("a copy from memory that is not pinned")
        elif not is_dense(tensor):
            # torch makes it dense first, in memory that is not pinned.
            self._card.waited("a copy of numbers with gaps between them")
        else:
            self._card.sent(tensor, on_card, "a copy")
            return OnCard(on_card)
        self._card.launch("a copy", (), [on_card], [on_card])
        return OnCard(on_card)


def _pinned_copy(tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy in pinned memory, with the gaps that its numbers have."""
    return pinned(
        torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype).copy_(tensor)
    )
