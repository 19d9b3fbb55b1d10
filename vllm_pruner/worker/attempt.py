"""One selection by a method of another package, or a stand-in for images at which it fails.

The stand-in keeps every N/keep-th token, much as `uniform` does: it needs no inputs and cannot
fail.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from vtprune_kernels import gather_rows

from vllm_pruner.methods import contract, foreign
from vllm_pruner.methods.base import TOWER, Kept, Need
from vllm_pruner.methods.faults import MethodFault
from vllm_pruner.methods.on_device import on_device

if TYPE_CHECKING:
    from vllm_pruner.methods.base import Method, Options, VisualTokens

__all__ = ["Attempt"]

_BY_IMAGE = ("features", Need.PROJECTED, Need.TEXT, *sorted(TOWER))
"""Fields of `VisualTokens` that are indexed by image."""


class Attempt:
    """A `layout.part_budget.Run` for a method of another package."""

    def __init__(self, is_over: bool = False) -> None:
        """Start without faults.

        Args:
            is_over: if True, the method is not called and all images get the stand-in.
        """
        self._is_over = is_over
        self.faults: dict[int, MethodFault] = {}
        """By the image's place in its group."""

    def __call__(self, method: Method, tokens: VisualTokens, keep: int, options: Options) -> Kept:
        """Return a valid selection of `keep` tokens of each image."""
        images = len(tokens.features)
        if self._is_over or len(self.faults) == images:
            return _stand_in(tokens, keep)
        try:
            kept, found = _called(method, tokens, keep, options)
        except MethodFault as error:
            if images > 1 and not foreign.hangs(method.name):
                return self._one_by_one(method, tokens, keep, options)
            kept, found = _stand_in(tokens, keep), dict.fromkeys(range(images), error)
        self.faults = {**found, **self.faults}
        return _with_stand_ins(kept, tokens, sorted(found))

    def _one_by_one(
        self, method: Method, tokens: VisualTokens, keep: int, options: Options
    ) -> Kept:
        """Find the images at which a method fails, and keep its selection for the others."""
        parts = []
        for place in range(len(tokens.features)):
            alone = Attempt()
            parts.append(alone(method, _image(tokens, place), keep, options))
            if alone.faults:
                self.faults[place] = alone.faults[0]
        index = torch.cat([part.index for part in parts])
        if all(part.rows is None for part in parts):
            return Kept(index)
        rows = [
            _rows_at(_image(tokens, place), part.index) if part.rows is None else part.rows
            for place, part in enumerate(parts)
        ]
        return Kept(index, torch.cat(rows))


def _called(
    method: Method, tokens: VisualTokens, keep: int, options: Options
) -> tuple[Kept, dict[int, MethodFault]]:
    """Return what a method keeps and, by image, what is wrong with it.

    Raises:
        MethodFault: the method raised, or did not return.
    """
    settings = _settings_here(tokens.features.device)

    def call() -> tuple[Kept, str | None, dict[int, str]]:
        with settings():
            kept = method.choose(tokens, keep, options)
            if wrong := contract.shape_fault(method, kept, tokens, keep):
                return kept, wrong, {}
            return kept, None, contract.faults(method, kept, tokens.features.shape[1])

    kept, wrong, found = foreign.call(method.name, "select", call)
    if wrong is not None:
        kept, found = _stand_in(tokens, keep), dict.fromkeys(range(len(tokens.features)), wrong)
    return kept, {place: foreign.fault(method.name, said) for place, said in found.items()}


def _settings_here(device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """Return a context manager that gives another thread this thread's CUDA stream and inference
    mode, both of which are per thread."""
    is_inference = torch.is_inference_mode_enabled()
    stream = torch.cuda.current_stream(device) if device.type == "cuda" else None

    def settings() -> AbstractContextManager[object]:
        stack = ExitStack()
        stack.enter_context(torch.inference_mode(is_inference))
        stack.enter_context(torch.no_grad())
        stack.enter_context(nullcontext() if stream is None else torch.cuda.stream(stream))
        return stack

    return settings


def _stand_in(tokens: VisualTokens, keep: int) -> Kept:
    images, total, _ = tokens.features.shape
    index = torch.arange(keep, device=tokens.features.device) * total // keep
    return Kept(index.repeat(images, 1))


def _with_stand_ins(kept: Kept, tokens: VisualTokens, places: Sequence[int]) -> Kept:
    """Return a selection in which the images at `places` have the stand-in."""
    if not places:
        return kept
    at = on_device(places, kept.index.device)
    instead = _stand_in(tokens, kept.index.shape[1]).index
    index = kept.index.index_copy(0, at, instead[at])
    if kept.rows is None:
        return Kept(index)
    return Kept(index, kept.rows.index_copy(0, at, _rows_at(tokens, instead)[at]))


def _rows_at(tokens: VisualTokens, index: torch.Tensor) -> torch.Tensor:
    """Return the features `[images, keep, D]` at an index `[images, keep]`."""
    return gather_rows([tokens.features], index)[0]


def _image(tokens: VisualTokens, place: int) -> VisualTokens:
    """Return the image at `place` as a batch of one."""
    parts: dict[str, Any] = {name: getattr(tokens, name) for name in _BY_IMAGE}
    for name, column in parts.items():
        parts[name] = None if column is None else column[place : place + 1]
    return replace(tokens, **parts)
