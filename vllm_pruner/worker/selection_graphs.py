"""The server's own selection in CUDA graphs.

A selection is ten to thirty launches, which cost more than the work for few images: on an H200,
choosing 64 of 576 tokens of one image by `vispruner` took 1.27 ms in a server and 0.56 ms as a
graph (2026-11-27, `benchmarks/results/h200-2026-11-27`). What is captured is the server's own
method and options, for the sizes in `selection_shapes`; every other selection runs eagerly. A
method chooses for each image by itself, so an image keeps the same tokens beside whatever fills the
rest of a graph.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from vllm_pruner import methods
from vllm_pruner.methods.base import Kept, Method, Need, Options, VisualTokens
from vllm_pruner.methods.texts import Texts
from vllm_pruner.tower import FEATURES
from vllm_pruner.worker.columns import parameter_of
from vllm_pruner.worker.recorder import CudaRecorder, HostFree, Record, Recorded
from vllm_pruner.worker.selection_buffers import SelectionBuffers
from vllm_pruner.worker.selection_shapes import MOST_WORDS, Shape, exact_shapes, ragged_shapes
from vllm_pruner.worker.warm_up import random_tokens

if TYPE_CHECKING:
    from vllm_pruner.layout.layout import Layout
    from vllm_pruner.settings.config import PruneConfig
    from vllm_pruner.tower import Tower

__all__ = ["SelectionGraphs", "selection_graphs"]

logger = logging.getLogger("vllm.vtprune")


@torch.no_grad()
def selection_graphs(
    config: PruneConfig,
    largest: Layout,
    tower: Tower,
    *,
    of_one_size: bool,
    record: Record | None = None,
) -> SelectionGraphs | None:
    """Return the graphs of a server's selection, or None, said in the log, if there are none.

    Args:
        config: the server's settings of images.
        largest: the layout of the largest image.
        tower: makes the tokens.
        of_one_size: whether all images have that layout.
        record: see `SelectionGraphs`; None captures CUDA graphs.
    """
    shapes = _shapes(config, tower, largest.tokens, of_one_size=of_one_size)
    if not shapes:
        return None
    method, options = config.resolved
    longest = max(shape.tokens for shape in shapes)
    start, held = time.perf_counter(), _reserved(tower)
    tokens = random_tokens(tower, longest, method.needs)
    projected = tokens.projected if Need.PROJECTED in method.needs else None
    text = tokens.text if method.needs_text else None
    tokens = replace(tokens, projected=projected, text=text, grid=largest.whole_grid)
    try:
        made = SelectionGraphs(method, options, tokens, shapes, record or CudaRecorder())
    except RuntimeError as error:
        logger.warning("vtprune: selection is served without CUDA graphs: %s", error)
        return None
    logger.info(
        "vtprune: selection by %s is in %d CUDA graphs, for up to %d images and %d visual tokens: "
        "captured in %.1f s, %d MiB",
        method.name,
        len(shapes),
        max(shape.images for shape in shapes),
        longest,
        time.perf_counter() - start,
        _reserved(tower) - held >> 20,
    )
    return made


def _shapes(config: PruneConfig, tower: Tower, most: int, *, of_one_size: bool) -> list[Shape]:
    """Return the shapes to capture: none of a method that shrinks the image or chooses
    before the tower, nor of another package's, which runs guarded."""
    if config.off or config.request_tokens or methods.package_of(config.method) is not None:
        return []
    method, _ = config.resolved
    if method.shrink or method.before_tower:
        return []
    exact = exact_shapes(most, config.keep_count(most)) if of_one_size else []
    if not method.ragged:
        return exact
    width, _ = tower.columns(frozenset())[FEATURES]
    width = tower.own_width or width
    return exact + ragged_shapes(most, width, config.keep_count, of_one_size=of_one_size)


def _reserved(tower: Tower) -> int:
    """Return the bytes that torch holds of the device."""
    device = parameter_of(tower.module).device
    return torch.cuda.memory_reserved(device) if device.type == "cuda" else 0


def _fits(text: Sequence[torch.Tensor] | None) -> bool:
    """Return whether a graph has room for the texts, without asking the device."""
    return isinstance(text, Texts) and text.longest <= MOST_WORDS


class SelectionGraphs:
    """One method with its options, captured for several shapes."""

    def __init__(
        self,
        method: Method,
        options: Options,
        tokens: VisualTokens,
        shapes: list[Shape],
        record: Record,
    ) -> None:
        """Capture, and hold each graph against the method on the same tokens.

        Args:
            method: the server's own.
            options: its options.
            tokens: tokens of one image, `[1, N, ...]`, with what the method reads.
            shapes: the sizes to capture; a selection takes the first that holds it.
            record: records a selection so that it can be run again.

        Raises:
            RuntimeError: the host takes part in the method, CUDA cannot capture it, or a graph
                keeps other tokens than the method.
        """
        self._method, self._options = method, options
        self._buffers = SelectionBuffers(tokens, shapes)
        # The largest first: smaller ones find their memory in its pool.
        order = sorted(shapes, key=lambda shape: -shape.images * shape.tokens**2)
        captured = {shape: self._capture(shape, record) for shape in order}
        self._graphs = {shape: captured[shape] for shape in shapes}
        for shape in shapes:
            self._prove(shape)

    def choose(self, method: Method, tokens: VisualTokens, keep: int, options: Options) -> Kept:
        """Return what `Method.choose` returns, from a graph where one holds the selection."""
        shape = self._shape(method, tokens, keep, options)
        if shape is None:
            return method.choose(tokens, keep, options)
        self._buffers.fill(shape, tokens, keep)
        replay, kept = self._graphs[shape]
        replay()
        images = len(tokens.features)
        rows = None if kept.rows is None else kept.rows[:images].clone()
        return Kept(kept.index[:images, :keep].clone(), rows)  # the next replay overwrites them

    def _shape(
        self, method: Method, tokens: VisualTokens, keep: int, options: Options
    ) -> Shape | None:
        """Return the first shape that holds a selection, or None."""
        if (method, options) != (self._method, self._options) or tokens.frames != 1:
            return None
        if method.needs_text and not _fits(tokens.text):
            return None
        images, length = tokens.features.shape[:2]
        # Of images in one call by their own lengths, `padded` to the longest.
        least = keep if tokens.ragged is None else tokens.ragged.least
        fitting = (
            shape
            for shape in self._graphs
            if shape.holds(images, length, keep, least)
            and (tokens.ragged is None or shape.least is not None)
        )
        return next(fitting, None)

    def _capture(self, shape: Shape, record: Record) -> Recorded:
        tokens = self._buffers.of(shape)
        self._buffers.draw(shape, seed=0)
        with HostFree():
            self._method.choose(tokens, shape.keep, self._options)  # launches every kernel once
        return record(lambda: self._method.choose(tokens, shape.keep, self._options))

    def _prove(self, shape: Shape) -> None:
        """Compare a graph with the method on other noise, to find work that the capture missed."""
        self._buffers.draw(shape, seed=1)
        expected = self._method.choose(self._buffers.of(shape), shape.keep, self._options)
        replay, kept = self._graphs[shape]
        replay()
        if not torch.equal(kept.index, expected.index):
            raise RuntimeError(
                f"a graph of {self._method.name!r} for {shape.images} images of {shape.tokens} "
                "tokens keeps other tokens than the method"
            )
