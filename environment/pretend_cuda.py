"""What this project uses of `torch.cuda`, for the GPU that is not there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from pretend_functions import Functions
from pretend_gpu import Card
from pretend_graph import Capture, Graph
from pretend_memory import use_of
from pretend_streams import MAIN, Event, Stream, current, on_stream, set_current
from pretend_tensor import OnCard, host

__all__ = ["pretend_gpu"]


class _Generator(torch.Generator):
    """Draws on the host for the card."""

    def __new__(cls, device: Any = "cpu") -> _Generator:
        return super().__new__(cls, "cpu")


@contextmanager
def pretend_gpu(allowed: Collection[str] = ()) -> Iterator[Card]:
    """Yield a card that is not there, and have `torch.cuda` speak of it within the block.

    Args:
        allowed: see `Card`.

    Raises:
        RuntimeError: at the end, if the block relied on an order that is not there.
    """
    with Card(allowed) as card, pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", _with_functions(card))
        patch.setattr(torch, "Generator", _Generator)
        patch.setattr(OnCard, "record_stream", lambda it, by: use_of(host(it)).promised(by))
        patch.setattr(torch.cuda, "Event", Event)
        patch.setattr(torch.cuda, "Stream", Stream)
        patch.setattr(torch.cuda, "CUDAGraph", Graph)
        patch.setattr(torch.cuda, "graph", Capture)
        patch.setattr(torch.cuda, "memory_reserved", lambda device=None: 0)
        patch.setattr(torch.cuda, "current_stream", current)
        patch.setattr(torch.cuda, "set_stream", set_current)
        patch.setattr(torch.cuda, "stream", on_stream)
        patch.setattr(
            torch.cuda, "synchronize", lambda device=None: card.waited("synchronize", True)
        )
        # What torch compiles for a card would be compiled for a CPU.
        with torch.compiler.set_stance("force_eager"), on_stream(MAIN), Functions(card):
            yield card


def _with_functions(card: Card) -> Callable[[threading.Thread], None]:
    """Return a `Thread.start` whose threads see the card too: a mode of torch is of one thread."""
    stock = threading.Thread.start

    def start(self: threading.Thread) -> None:
        run = self.run

        def inside() -> None:
            with Functions(card):
                run()

        self.run = inside  # type: ignore[method-assign]
        stock(self)

    return start
