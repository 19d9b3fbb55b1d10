"""The server's own selection in CUDA graphs, for models whose images all have equally many tokens.

A selection is some ten launches, which cost more than the work for few images: on an H200, choosing
64 of 576 tokens of one image by `vispruner` took 1.27 ms in a server and 0.56 ms as a graph
(2026-11-27, `benchmarks/results/h200-2026-11-27`). A graph has fixed shapes, so what is captured is
the server's own method and options at its own rate, for a few numbers of images; every other
selection runs eagerly. A method chooses for each image by itself, so an image keeps the same tokens
beside whatever fills the rest of a graph.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import torch

from vllm_pruner import methods
from vllm_pruner.methods.base import Kept, Need, VisualTokens
from vllm_pruner.worker.host_free import HostFree
from vllm_pruner.worker.warm_up import random_tokens

if TYPE_CHECKING:
    from vllm_pruner.layout.layout import Layout
    from vllm_pruner.settings.config import PruneConfig
    from vllm_pruner.tower import Tower

__all__ = ["IMAGES", "CudaRecorder", "Record", "Recorded", "SelectionGraphs", "selection_graphs"]

logger = logging.getLogger("vllm.vtprune")

IMAGES = (1, 2, 3, 4, 6, 8)
"""Images of the graphs. For more, the device is busy for longer than the host takes to launch: at
16 clients selection took 0.27 ms an image without graphs (the same measurement)."""

Recorded = tuple[Callable[[], None], Kept]
"""A recorded selection: a function that runs it again, and the buffers that it writes."""

Record = Callable[[Callable[[], Kept]], Recorded]


class CudaRecorder:
    """Captures selections in CUDA graphs that share their memory, since one is replayed at a time
    and its result copied before the next. Kernels must have been launched before."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, choose: Callable[[], Kept]) -> Recorded:
        """Capture one selection."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            kept = choose()
        self._pool = graph.pool()
        return graph.replay, kept


@torch.no_grad()
def selection_graphs(
    config: PruneConfig,
    layout: Layout,
    tower: Tower,
    record: Record | None = None,
) -> SelectionGraphs | None:
    """Return the graphs of a server's selection, or None, said in the log, if there are none.

    Args:
        config: the server's settings of images.
        layout: the layout of all images.
        tower: makes the tokens.
        record: see `SelectionGraphs`; None captures CUDA graphs.
    """
    if not _has_fixed_shapes(config):
        return None
    start, (method, _) = time.perf_counter(), config.resolved
    keep = config.keep_count(layout.tokens)
    tokens = random_tokens(tower, layout.tokens, method.needs)
    projected = tokens.projected if Need.PROJECTED in method.needs else None
    tokens = replace(tokens, projected=projected, text=None, grid=layout.whole_grid)
    try:
        made = SelectionGraphs(config, keep, tokens, record or CudaRecorder())
    except RuntimeError as error:
        logger.warning("vtprune: selection is served without CUDA graphs: %s", error)
        return None
    logger.info(
        "vtprune: selection of %d of %d tokens by %s is in CUDA graphs for %s images: captured in "
        "%.1f s",
        keep,
        layout.tokens,
        method.name,
        ", ".join(map(str, IMAGES)),
        time.perf_counter() - start,
    )
    return made


def _has_fixed_shapes(config: PruneConfig) -> bool:
    """Return whether settings choose one budget for every image by a method that reads no text and
    does not shrink the image; one of ours, since others run guarded."""
    if config.off or config.request_tokens or methods.package_of(config.method) is not None:
        return False
    method, _ = config.resolved
    return not (method.needs_text or method.shrink)


class SelectionGraphs:
    """One method with one budget, captured for several numbers of images of N tokens."""

    def __init__(
        self,
        config: PruneConfig,
        keep: int,
        tokens: VisualTokens,
        record: Record,
    ) -> None:
        """Capture, and hold each graph against the method on the same tokens.

        Args:
            config: the server's settings.
            keep: tokens that they keep of an image.
            tokens: tokens of one image, `[1, N, ...]`, with what the method reads.
            record: records a selection so that it can be run again.

        Raises:
            RuntimeError: the host takes part in the method, CUDA cannot capture it, or a graph
                keeps other tokens than the method.
        """
        self._key = *config.resolved, keep
        self._buffers = _repeated(tokens, IMAGES[-1])
        # The largest first: smaller ones find their memory in its pool.
        self._graphs = {number: self._capture(number, record) for number in reversed(IMAGES)}
        for number in IMAGES:
            self._prove(number)

    def kept(self, tokens: VisualTokens, config: PruneConfig, keep: int) -> Kept | None:
        """Return what the method keeps of a group of images; None if no graph holds that selection.

        Args:
            tokens: the tokens of the group's images.
            config: the group's settings.
            keep: tokens that they keep of an image.
        """
        images, length = tokens.features.shape[:2]
        if (*config.resolved, keep) != self._key or length != self._buffers.features.shape[1]:
            return None
        number = next((number for number in IMAGES if number >= images), None)
        if number is None:
            return None
        for name in _tensors(self._buffers):
            getattr(self._buffers, name)[:images].copy_(getattr(tokens, name))
        replay, kept = self._graphs[number]
        replay()
        rows = None if kept.rows is None else kept.rows[:images].clone()
        return Kept(kept.index[:images].clone(), rows)  # the next replay overwrites the buffers

    def _capture(self, number: int, record: Record) -> Recorded:
        method, options, keep = self._key
        tokens = _first(self._buffers, number)
        with HostFree():
            method.choose(tokens, keep, options)  # launches every kernel once
        return record(lambda: method.choose(tokens, keep, options))

    def _prove(self, number: int) -> None:
        """Compare a graph with the method on noise, to find work that the capture missed."""
        method, options, keep = self._key
        for name in _tensors(self._buffers):
            buffer = getattr(self._buffers, name)
            draw = torch.Generator(buffer.device).manual_seed(number)  # not the sampler's
            buffer.uniform_(generator=draw)
        expected = method.choose(_first(self._buffers, number), keep, options)
        replay, kept = self._graphs[number]
        replay()
        if not torch.equal(kept.index, expected.index):
            raise RuntimeError(
                f"a graph of {method.name!r} for {number} images keeps other tokens than the method"
            )


def _tensors(tokens: VisualTokens) -> list[str]:
    """Return the names of the fields that hold a tensor."""
    names = (field.name for field in fields(tokens))
    return [name for name in names if isinstance(getattr(tokens, name), torch.Tensor)]


def _repeated(tokens: VisualTokens, images: int) -> VisualTokens:
    """Return buffers that hold the tokens of one image several times."""
    made = {
        name: getattr(tokens, name).repeat_interleave(images, dim=0) for name in _tensors(tokens)
    }
    return replace(tokens, **made)


def _first(tokens: VisualTokens, images: int) -> VisualTokens:
    """Return the first images as views, so that a graph reads the buffers themselves."""
    return replace(tokens, **{name: getattr(tokens, name)[:images] for name in _tensors(tokens)})
