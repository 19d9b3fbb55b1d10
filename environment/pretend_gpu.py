"""A GPU that is not there, whose tensors hold real numbers: what runs on it gives what a CPU gives,
and it objects to what a GPU would.

A tensor of it says that it is on `cuda:0` and keeps its numbers in a tensor of the CPU, where every
operator computes them, the references of `vtprune_kernels` in place of kernels. An operator that
mixes it with a tensor of the host raises, as in CUDA. What makes the host wait for a device goes
through, and is noted. Not shown are kernels, streams and memory.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["CARD", "Card", "OnCard", "host", "memory_of", "tensors_in"]

CARD = torch.device("cuda:0")

_WAITS = {
    *("item", "_local_scalar_dense", "is_nonzero", "equal", "allclose", "nonzero", "bincount"),
    *("masked_select", "unique_consecutive", "unique_dim", "_unique", "_unique2", "argwhere"),
}
"""Operators that read on the host a number, or how large their result is."""

_WHOLE = {"linear", "scaled_dot_product_attention", "layer_norm", "rms_norm", "item", "is_nonzero"}
"""Operators made of others that run as they are, to give the bits that they give on a CPU."""

_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd

_READS = {"tolist", "numpy", "__array__"}
"""Of a tensor: they read it without an operator."""


class OnCard(torch.Tensor):
    """A tensor on the card that is not there."""

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
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        if name not in _WHOLE and _is_made_of_others(func):
            return func._op_dk(_COMPOSITE, *args, **kwargs)
        card = Card.active
        assert card is not None, "nothing runs on a card outside of its context"
        _refuse_mixes(name, args, kwargs)
        if wait := _wait(name, args, kwargs):
            card.waited(wait)
        here, named = tree_map(host, (list(args), dict(kwargs)))
        result = func(*here, **named)
        if name == "copy_" and not isinstance(args[0], OnCard):
            return args[0]
        card.ran(func, here, named, result)
        given = [each for each in tensors_in((args, kwargs)) if isinstance(each, OnCard)]
        return tree_map(lambda it: _wrapped(it, given), result)


def _wrapped(value: Any, given: Sequence[OnCard]) -> Any:
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


class Card(TorchFunctionMode):
    """A context in which `cuda` is a card that is not there."""

    active: ClassVar[Card | None] = None

    def __init__(self, allowed: Collection[str] = ()) -> None:
        """Note no wait yet.

        Args:
            allowed: functions of vLLM, as `module:qualified name`, in which the host may wait.
        """
        super().__init__()
        self.tape: list[Any] | None = None
        """Where a graph records what runs; None while none is captured."""
        self.waits: list[str] = []
        """What made the host wait, and where."""
        self._allowed = frozenset(allowed)
        self._pinned: dict[int, torch.Tensor] = {}
        self._before: Card | None = None
        self._used: set[str] = set()

    def __enter__(self) -> Self:
        self._before, Card.active = Card.active, self
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        Card.active = self._before

    def runs(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function of tensors of the host as one operator of the card."""

        def operator(*args: Any) -> Any:
            here = tree_map(host, list(args))
            result = func(*here)
            self.ran(func, here, {}, result)
            return _wrapped(result, [])

        return operator

    def ran(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        """Record an operator that ran on the host's tensors, if a graph is captured."""
        if self.tape is not None:
            known = {memory_of(each) for each in tensors_in((args, kwargs))}
            made = [each for each in tensors_in(result) if memory_of(each) not in known]
            self.tape.append((func, args, kwargs, made))

    def waited(self, what: str) -> None:
        """Note that the host waits, unless it may there.

        Raises:
            RuntimeError: a graph is being captured.
        """
        if self.tape is not None:
            raise RuntimeError(f"operation not permitted when stream is capturing: {what}")
        where, found = "", sys._getframe(1)
        while found is not None:
            module = found.f_globals.get("__name__", "")
            place = f"{module}:{found.f_code.co_qualname}"
            if place in self._allowed:
                self._used.add(place)
                return
            if not where and not module.startswith(("pretend_", "torch")):
                where = place
            found = found.f_back  # type: ignore[assignment]
        self.waits.append(f"{what} in {where}")

    @property
    def unused(self) -> frozenset[str]:
        """The functions that may wait and did not."""
        return self._allowed - self._used

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        name, kwargs = getattr(func, "__name__", ""), dict(kwargs or {})
        if name in _READS and isinstance(args[0], OnCard):
            self.waited(name)
            return func(host(args[0]), *args[1:], **kwargs)
        if name == "new_tensor" and isinstance(args[0], OnCard):
            self.waited("a tensor of numbers of the host")
        if name in ("to", "cpu", "cuda"):
            return self._moved(name, args[0], args[1:], kwargs)
        if name == "pin_memory":
            return self._pin(args[0].clone())
        if name == "is_pinned":
            return memory_of(args[0]) in self._pinned
        target, pinned = kwargs.pop("device", None), kwargs.pop("pin_memory", False)
        made = func(*args, **kwargs) if target is None else self._made(func, args, kwargs, target)
        return self._pin(made) if pinned and not isinstance(made, OnCard) else made

    def _made(self, func: Any, args: Any, kwargs: Any, target: Any) -> Any:
        """Return what a function makes on a device."""
        on_card = torch.device(target).type == "cuda"
        if not on_card and not any(isinstance(it, OnCard) for it in tensors_in((args, kwargs))):
            return func(*args, **kwargs, device=target)
        made = func(*tree_map(host, list(args)), **tree_map(host, kwargs), device="cpu")
        if not on_card:
            return made
        if func.__name__ in ("tensor", "as_tensor", "asarray"):
            self.waited("a tensor of numbers of the host")
        named = {**tree_map(host, kwargs), "device": "cpu"}
        self.ran(func, tree_map(host, list(args)), named, made)
        return OnCard(made)

    def _pin(self, tensor: torch.Tensor) -> torch.Tensor:
        self._pinned[memory_of(tensor)] = tensor  # kept, so that no other gets its number
        return tensor

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
        if to_card != tensor.is_cuda:
            if not to_card:
                self.waited("a copy to the host")
            elif at_once or memory_of(tensor) not in self._pinned:
                self.waited("a copy from memory that is not pinned")
            elif self.tape is not None:
                raise RuntimeError("a graph would copy from memory of the host that is used again")
            moved = host(tensor).clone()
            tensor = OnCard(moved) if to_card else moved
        return tensor.to(**kwargs) if kwargs else tensor


def _is_made_of_others(func: Any) -> bool:
    """Return whether an operator calls others on every device, some of which may wait."""
    has: bool = torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), _COMPOSITE)
    return has


def tensors_in(values: Any) -> list[torch.Tensor]:
    """Return the tensors among arguments or results."""
    return [each for each in tree_leaves(values) if isinstance(each, torch.Tensor)]


def memory_of(tensor: torch.Tensor) -> int:
    """Return what tells a tensor's memory from another's."""
    return tensor.untyped_storage()._cdata


def _refuse_mixes(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Raise what CUDA raises for a tensor of the host among those of the card. It takes a number,
    copies, and indices, all of which `_wait` may know."""
    if name in ("copy_", "_to_copy"):
        return
    given = args[0:1] if name in ("index", "index_put", "index_put_") else (args, kwargs)
    on_host = [it for it in tensors_in(given) if type(it) is torch.Tensor and it.dim()]
    if on_host:
        raise RuntimeError(
            f"Expected all tensors to be on the same device: {name} got one of the host, "
            f"{[*on_host[0].shape]}"
        )


def _wait(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Return why the host waits in an operator, or nothing."""
    if name in _WAITS:
        return name
    if name == "copy_":
        if not isinstance(args[0], OnCard):
            return "a copy to the host"
        return "" if isinstance(args[1], OnCard) else "a copy from the host"
    if name in ("index", "index_put", "index_put_"):
        return _wait_of_index(name, args)
    if name == "repeat_interleave" and kwargs.get("output_size") is None:
        return name
    return name if name == "where" and len(args) == 1 else ""


def _wait_of_index(name: str, args: Sequence[Any]) -> str:
    indices = [index for index in args[1] if index is not None]
    if any(not isinstance(index, OnCard) for index in indices):
        return "an index of the host"
    # One number behind a mask is filled in without asking where.
    filled = name != "index" and args[2].numel() == 1
    masked = any(index.dtype in (torch.bool, torch.uint8) for index in indices)
    return "a mask as an index" if masked and not filled else ""
