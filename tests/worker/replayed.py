"""A selection recorded as a CUDA graph records it: the method, run again on the buffers that it
was recorded with. That is all of it but the GPU."""

from __future__ import annotations

from collections.abc import Callable

from vllm_pruner.methods.base import Kept
from vllm_pruner.worker.recorder import Recorded
from vllm_pruner.worker.selection_graphs import SelectionGraphs
from vllm_pruner.worker.selection_shapes import Shape

__all__ = ["again", "replays_of"]


def again(choose: Callable[[], Kept]) -> Recorded:
    """Record a selection; a replay writes into the same buffers."""
    kept = choose()
    kept = Kept(kept.index.contiguous(), kept.rows)  # a graph's output is never expanded

    def replay() -> None:
        made = choose()
        kept.index.copy_(made.index)
        if kept.rows is not None:
            assert made.rows is not None
            kept.rows.copy_(made.rows)

    return replay, kept


def replays_of(graphs: SelectionGraphs) -> list[Shape]:
    """Return a list that gets the shape of each replay from now on."""
    shapes: list[Shape] = []

    def noted(shape: Shape, replay: Callable[[], None]) -> Callable[[], None]:
        def replay_and_note() -> None:
            shapes.append(shape)
            replay()

        return replay_and_note

    graphs._graphs = {
        shape: (noted(shape, replay), kept) for shape, (replay, kept) in graphs._graphs.items()
    }
    return shapes
