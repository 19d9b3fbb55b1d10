"""What the host does for a device in one call of `embed_multimodal`: the operators that torch
dispatches, by stage and by kind.

A CPU dispatches what a card does, so they can be counted without one. An operator of torch is one
kernel launch or a few. An operator of `vtprune_kernels` counts once, although its reference, which
runs on a CPU, consists of many; `kernels/README.md` says what it launches.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import FrameType
from typing import Any, Self

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["KINDS", "OTHER", "Launched", "stages_of"]

KINDS = ("launch", "view", "send", "read")
"""Operators that work on the device; views and allocations, which cost the host alone; tensors made
of numbers on the host; and what waits for the device, if the tensor is there."""

OTHER = "other"
"""The stage of what no function below calls."""

_STAGES = {
    "ImagePlan.pop_all": "plans",
    "PrunedModel._images": "images",
    "PrunedModel._normalized": "images",
    "CropTower.encode": "tower's edge",
    "PackedTower.encode": "tower's edge",
    "AttentionProbe": "probe",
    "FeatureCache": "feature cache",
    "BatchModel._tokens_of": "arrange",
    "BatchModel._own": "arrange",
    "Selector.select": "selection",
    "with_newlines": "newlines",
    "with_newlines_of_many": "newlines",
    "BatchModel._project": "project",
    "BatchModel.placed": "place",
    "MRopeModel.placed": "place",
}
"""The stage of a function, or of all functions of a class."""

_READS = {
    *("item", "_local_scalar_dense", "is_nonzero", "equal"),
    *("nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive"),
}
_SENDS = {"lift_fresh"}
"""What `torch.tensor` calls."""
_MADE = {"empty", "empty_like", "new_empty", "empty_strided", "detach_"}
"""What allocates, or, like a view, does nothing to the memory."""

_METHODS = {"tolist", "numpy", "__array__", "cpu"}
"""Of a tensor: on a CPU they read without an operator."""

_OURS = "vtprune_kernels."


def stages_of(model: Any) -> dict[str, str]:
    """Return the stages of a `PrunedModel`; `tower` is all that vLLM's own module of it does."""
    return {**_STAGES, type(model.tower.module).__name__: "tower"}


class Launched:
    """A context that counts what is dispatched in it."""

    def __init__(self, stages: Mapping[str, str]) -> None:
        """Count nothing yet.

        Args:
            stages: see `stages_of`; of functions that call each other the inner one counts.
        """
        self.counts: Counter[tuple[str, str, str]] = Counter()
        """By stage, kind and operator."""
        self._stages = stages
        self._inside: FrameType | None = None  # the last call of an operator of ours
        self._modes = ExitStack()

    def __enter__(self) -> Self:
        self._modes.enter_context(_Methods(self))
        self._modes.enter_context(_Operators(self))
        return self

    def __exit__(self, *error: object) -> None:
        self._modes.close()

    def of(self, kind: str, *stages: str) -> int:
        """Return the number of operators of a kind, in these stages or in all."""
        return sum(
            number
            for (stage, each, _), number in self.counts.items()
            if each == kind and (not stages or stage in stages)
        )

    def note(self, kind: str, name: str) -> None:
        """Count an operator that the functions on the stack called."""
        stage, ours = OTHER, None
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and stage == OTHER:
            function = frame.f_code.co_qualname
            found = self._stages.get(function) or self._stages.get(function.partition(".")[0])
            stage = found or OTHER
            if not found and frame.f_globals.get("__name__", "").startswith(_OURS):
                ours = frame
            frame = frame.f_back
        if ours is None:
            self.counts[stage, kind, name] += 1
        elif ours is not self._inside:
            self.counts[stage, "launch", ours.f_code.co_name] += 1
        self._inside = ours


class _Operators(TorchDispatchMode):
    def __init__(self, launched: Launched) -> None:
        super().__init__()
        self._launched = launched

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        kind = _kind(func, args, kwargs or {}, result)
        self._launched.note(kind, func.overloadpacket.__name__)
        return result


class _Methods(TorchFunctionMode):
    def __init__(self, launched: Launched) -> None:
        super().__init__()
        self._launched = launched

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if (name := getattr(func, "__name__", "")) in _METHODS:
            self._launched.note("read", name)
        return func(*args, **(kwargs or {}))


def _kind(func: Any, args: Sequence[Any], named: Mapping[str, Any], result: Any) -> str:
    """Return the kind of an operator, given its result."""
    name = func.overloadpacket.__name__
    if name in _READS or _counts(name, args, named):
        return "read"
    if name in _SENDS:
        return "send"
    if func._schema.is_mutable and name not in _MADE:
        return "launch"
    known = {_memory(each) for each in args if isinstance(each, torch.Tensor)}
    results = result if isinstance(result, (list, tuple)) else [result]
    is_view = all(isinstance(each, torch.Tensor) and _memory(each) in known for each in results)
    return "view" if is_view or name in _MADE else "launch"


def _memory(tensor: torch.Tensor) -> int:
    """Return what tells a tensor's memory from another's."""
    return tensor.untyped_storage()._cdata


def _counts(name: str, args: Sequence[Any], named: Mapping[str, Any]) -> bool:
    """Return whether an operator reads how large its result is: how many places of a mask are
    true, or how often rows are repeated."""
    if name in ("index", "index_put_"):
        return any(index is not None and index.dtype == torch.bool for index in args[1])
    if name == "repeat_interleave":
        return isinstance(args[-1], torch.Tensor) and named.get("output_size") is None
    return name == "where" and len(args) == 1
