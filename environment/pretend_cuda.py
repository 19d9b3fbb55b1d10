"""What this project uses of `torch.cuda`, for the GPU that is not there.

A graph runs again the operators that ran while it was captured, on the same memory, and nothing
else: a number that the host had read, or memory that it wrote only then, is as old as in a graph of
CUDA. What CUDA cannot capture raises.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from pretend_gpu import Card, memory_of, tensors_in

__all__ = ["Graph", "pretend_gpu"]


class Event:
    """Marks a moment that has passed as soon as it is asked for."""

    def __init__(self, enable_timing: bool = False) -> None:
        self._is_timed = enable_timing

    def record(self, stream: Any = None) -> None:
        """Mark the moment."""

    def query(self) -> bool:
        """Return whether the device has passed it."""
        return True

    def elapsed_time(self, end: Event) -> float:
        """Return milliseconds between two moments."""
        assert self._is_timed and end._is_timed
        return 1.0


class Graph:
    """A `torch.cuda.CUDAGraph`."""

    def __init__(self) -> None:
        self.tape: list[tuple[Any, Any, Any, list[torch.Tensor]]] = []
        """Operators with their arguments, and what they made of new memory."""

    def pool(self) -> object:
        """Return what graphs that share memory share."""
        return self

    def replay(self) -> None:
        """Run the operators again."""
        with torch.inference_mode():
            for func, args, kwargs, made in self.tape:
                for old, new in zip(made, _made(func(*args, **kwargs), args, kwargs), strict=True):
                    old.copy_(new)


_current = ["the default stream"]


@contextmanager
def _stream(stream: str) -> Iterator[None]:
    """Make a stream the current one within the block."""
    before, _current[0] = _current[0], stream
    try:
        yield
    finally:
        _current[0] = before


class _Capture:
    """A `torch.cuda.graph`: within it operators are recorded, on a stream of its own."""

    def __init__(self, graph: Graph, pool: Any = None, stream: str = "of captures") -> None:
        self._graph, self._stream, self._before = graph, stream, ""

    def __enter__(self) -> None:
        assert Card.active is not None and Card.active.tape is None
        Card.active.tape = self._graph.tape
        self._before, _current[0] = _current[0], self._stream

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        assert Card.active is not None
        Card.active.tape = None
        if error is not None:  # torch finds that before it leaves its stream
            raise RuntimeError(f"operation failed due to a previous error: {error}")
        _current[0] = self._before
        with torch.inference_mode():
            for *_, made in self._graph.tape:  # CUDA only records them
                for each in made:
                    each.zero_()


class _Generator(torch.Generator):
    """Draws on the host for the card."""

    def __new__(cls, device: Any = "cpu") -> _Generator:
        return super().__new__(cls, "cpu")


def _made(result: Any, args: Any, kwargs: Any) -> list[torch.Tensor]:
    """Return the tensors in a result whose memory is new."""
    known = {memory_of(each) for each in tensors_in((args, kwargs))}
    return [each for each in tensors_in(result) if memory_of(each) not in known]


@contextmanager
def pretend_gpu(allowed: Collection[str] = ()) -> Iterator[Card]:
    """Yield a card that is not there, and have `torch.cuda` speak of it within the block.

    Args:
        allowed: see `Card`.
    """
    with Card(allowed) as card, pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "Generator", _Generator)
        patch.setattr(torch.cuda, "Event", Event)
        patch.setattr(torch.cuda, "CUDAGraph", Graph)
        patch.setattr(torch.cuda, "graph", _Capture)
        patch.setattr(torch.cuda, "memory_reserved", lambda device=None: 0)
        patch.setattr(torch.cuda, "current_stream", lambda device=None: _current[0])
        patch.setattr(torch.cuda, "stream", _stream)
        patch.setattr(torch.cuda, "synchronize", lambda device=None: card.waited("synchronize"))
        # What torch compiles for a card would be compiled for a CPU.
        with torch.compiler.set_stance("force_eager"):
            yield card
