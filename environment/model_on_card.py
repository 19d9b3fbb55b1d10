"""A pruned model on the GPU that is not there, and batches as a runner hands them to it there."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from pretend_cuda import pretend_gpu
from pretend_gpu import Card
from pretend_tensor import CARD, OnCard
from pruned_model import stock_class
from vllm.config import set_current_vllm_config
from vllm.multimodal.utils import group_and_batch_mm_kwargs
from vllm.platforms import current_platform
from vllm.utils.platform_utils import is_pin_memory_available

from vllm_pruner.tower import VIDEO_PIXELS

__all__ = ["as_sent", "embedded", "kept_of", "model_on_card", "runner_batches"]


@contextmanager
def model_on_card(config: Any, model: Any, allowed: Collection[str] = ()) -> Iterator[Card]:
    """Move a model to the card for the block, and make what is ours of it there anew.

    Args:
        config: vLLM's.
        model: a pruned model.
        allowed: see `Card`.
    """
    with (
        pretend_gpu(allowed) as card,
        _pinned_memory(),
        pytest.MonkeyPatch.context() as patch,
    ):
        for module in model.modules():
            _move(patch, card, module)
        own = type(model)
        with set_current_vllm_config(config), pytest.MonkeyPatch.context() as once:
            once.setattr(stock_class(f"{own.__module__}:{own.__name__}"), "__init__", _loaded)
            own.__init__(model, vllm_config=config)
        card.waits.clear()  # a start may wait
        yield card


def _move(patch: pytest.MonkeyPatch, card: Card, module: Any) -> None:
    """Move the tensors of one module; another model may share it afterwards (rotary tables)."""
    for tensors in (module._parameters, module._buffers):
        for name, tensor in [*tensors.items()]:
            if tensor is not None:
                patch.setitem(tensors, name, OnCard(tensor.detach()))
    for name, value in [*vars(module).items()]:  # such as tables made at the first call
        if isinstance(value, torch.Tensor) and not name.endswith("_cpu"):
            patch.setattr(module, name, OnCard(value.detach()))
    if "device" in vars(module):  # some remember where they were made
        patch.setattr(module, "device", CARD)
    if hasattr(module, "cpu_linear"):  # vLLM's for CPUs: one product of matrices
        patch.setattr(module, "cpu_linear", card.runs(module.cpu_linear))


def runner_batches(
    items: Sequence[Any], device: torch.device | None = CARD
) -> Iterator[dict[str, Any]]:
    """Yield the fields of pictures and videos in batches, as vLLM's runners hand them to
    `embed_multimodal`.

    Args:
        items: as the API server sends them; a video has the field of its pixels.
        device: the card; None for a CPU.
    """
    given = [("image" if VIDEO_PIXELS.isdisjoint(item) else "video", item) for item in items]
    pins = device is not None
    for _, _, fields in group_and_batch_mm_kwargs(given, device=device, pin_memory=pins):
        yield fields


def embedded(
    model: Any, items: Sequence[Any], device: torch.device | None = CARD
) -> list[torch.Tensor]:
    """Return what the decoder gets of pictures and videos; arguments as for `runner_batches`."""
    with torch.inference_mode():
        return [
            rows
            for fields in runner_batches(items, device)
            for rows in model.embed_multimodal(**fields)
        ]


def as_sent(item: Any) -> dict[str, Any]:
    """Return a picture as an API server sends it to `explain`."""
    fields = {name: element.field.reduce_data([element]) for name, element in item.items()}
    return {name: _packed(each) for name, each in fields.items()}


def _packed(field: Any) -> Any:
    if isinstance(field, list):
        return [_packed(each) for each in field]
    return str(field.numpy().dtype), list(field.shape), field.numpy().tobytes()


def kept_of(
    model: Any, items: Sequence[Any], device: torch.device | None = CARD
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return what `embedded` does, and the kept indices `[images, keep]` of each selection."""
    kept: list[torch.Tensor] = []
    choose = model._selector.select

    def select(tokens: Any, groups: Any) -> Any:
        chosen = choose(tokens, groups)
        kept.extend(each.index for each in chosen)
        return chosen

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model._selector, "select", select)
        return embedded(model, items, device), kept


def _loaded(*_: Any, **__: Any) -> None:
    """Stand for the `__init__` of vLLM's class, which has run."""


@contextmanager
def _pinned_memory() -> Iterator[None]:
    """Have vLLM pin memory, as it does wherever there is a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            type(current_platform), "is_pin_memory_available", classmethod(lambda _: True)
        )
        is_pin_memory_available.cache_clear()
        for name, module in [*sys.modules.items()]:
            if name.startswith("vllm.") and "PIN_MEMORY" in vars(module):
                patch.setattr(module, "PIN_MEMORY", True)
        try:
            yield
        finally:
            is_pin_memory_available.cache_clear()
