"""CUDA graphs of the GPU that is not there.

A graph runs again the operators that ran while it was captured, on the same memory, and nothing
else: a number that the host had read, or memory that it wrote only then, is as old as in a graph of
CUDA. What CUDA cannot capture raises. Graphs of one pool share their memory, so a replay spoils
what another one left.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from pretend_gpu import Card
from pretend_operators import Step, made_by, spoil
from pretend_streams import Stream, current, set_current
from pretend_tensor import OnCard, memory_of, tensors_in

__all__ = ["Capture", "Graph"]


class Graph:
    """A `torch.cuda.CUDAGraph`."""

    def __init__(self) -> None:
        self.tape: list[Step] = []
        self._sharing: weakref.WeakSet[Graph] = weakref.WeakSet([self])

    def pool(self) -> weakref.WeakSet[Graph]:
        """Return what graphs that share memory share."""
        return self._sharing

    def shares(self, pool: Any) -> None:
        """Take memory of a pool: another graph's, or any object."""
        if pool is None:
            return
        if not isinstance(pool, weakref.WeakSet):
            card = OnCard.active
            assert isinstance(card, Card)
            pool = card.pools.setdefault(pool, weakref.WeakSet())
        pool.add(self)
        self._sharing = pool

    def replay(self) -> None:
        """Run the operators again."""
        card = OnCard.active
        assert isinstance(card, Card)
        with torch.inference_mode():
            for other in self._sharing - {self}:
                for step in other.tape:
                    spoil(*step.made)
            for func, args, kwargs, made, _ in self.tape:
                for old, new in zip(
                    made, made_by(func(*args, **kwargs), args, kwargs), strict=True
                ):
                    old.copy_(new)
        made_here = {memory_of(each) for step in self.tape for each in step.made}
        given = [each for step in self.tape for each in tensors_in((step.args, step.kwargs))]
        read = [each for each in given if memory_of(each) not in made_here]
        written = [each for step in self.tape for each in (*step.made, *step.written)]
        card.launch("a graph", read, written)


class Capture:
    """A `torch.cuda.graph`: within it operators are recorded, on a stream of its own."""

    def __init__(self, graph: Graph, pool: Any = None, stream: Any = None, **_: Any) -> None:
        self._graph = graph
        self._stream = stream if isinstance(stream, Stream) else Stream()
        self._card = OnCard.active
        graph.shares(pool)

    def __enter__(self) -> None:
        assert isinstance(self._card, Card) and self._card.tape is None
        self._before = current()
        self._card.catch_up()  # torch synchronises the device first
        self._card.tape = self._graph.tape
        set_current(self._stream)

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        assert isinstance(self._card, Card)
        self._card.tape = None
        if error is not None:  # torch finds that before it leaves its stream
            raise RuntimeError(f"operation failed due to a previous error: {error}")
        set_current(self._before)
        with torch.inference_mode():
            for step in self._graph.tape:  # CUDA only records them
                for each in step.made:
                    each.zero_()
