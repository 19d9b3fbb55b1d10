"""A vision tower in CUDA graphs: what vLLM's manager asks of it, and its replay.

For one image, launching CLIP's kernels takes the host 16 ms, running them takes an H200 1.8 ms
(`docs/benchmarks.md`). The manager captures the tower at a few sizes and packs images into them. A
graph has one output, so what methods need travels in additional channels of the features
(`row_format`), bit for bit. Selection runs after the graphs, over all images of a batch; the
feature cache comes before them, so that the manager sees only images that are not cached.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch

from vllm_pruner import compat
from vllm_pruner.tower import FEATURES
from vllm_pruner.worker.row_format import RowFormat

if TYPE_CHECKING:
    from vllm_pruner.methods.base import Need
    from vllm_pruner.tower import CapturedTower, Columns, EncoderImage

__all__ = ["IMAGES", "TowerGraphs"]

IMAGES = "images"
"""The only keyword argument of a batch, which the manager passes on: its `EncoderImage`s."""

_CLOSE = 0.02
"""Largest relative difference, in the norm, between graph and tower. For the same shapes they are
bit-equal, unless capturing chooses another GEMM."""

_Outputs = dict[int, torch.Tensor] | list[torch.Tensor | None]


class TowerGraphs:
    """One tower, captured for one set of needs."""

    def __init__(self, tower: CapturedTower, needs: frozenset[Need]) -> None:
        """Store what is captured.

        Args:
            tower: the tower to capture.
            needs: what is read in it besides the features.
        """
        self._tower, self.needs = tower, needs
        self.format = RowFormat(tower.columns(needs))
        self._manager: Any = None
        self._exact: list[compat.CapturedGraph] = []

    @property
    def ready(self) -> bool:
        """Whether there are graphs to replay."""
        return self._manager is not None

    def hold(self, images: Sequence[EncoderImage], needs: frozenset[Need]) -> bool:
        """Return whether the graphs can encode these images with these needs."""
        return self.ready and needs == self.needs and all(map(self._tower.captures, images))

    def attach(self, manager: Any) -> None:
        """Replay the graphs of vLLM's manager from now on.

        Raises:
            RuntimeError: a graph's output differs from the tower's.
        """
        graphs = compat.captured_graphs(manager)
        self._exact = [graph for graph in graphs if self._prove(graph)]
        self._manager = manager

    def _prove(self, graph: compat.CapturedGraph) -> bool:
        """Compare a graph with the tower on noise, to find work that the capture missed; return
        whether its features are those of the tower that nothing is read from, bit for bit."""
        for buffer in graph.inputs.values():
            if buffer is not None and buffer.is_floating_point():
                draw = torch.Generator(buffer.device).manual_seed(0)  # not the sampler's
                buffer.normal_(generator=draw)
        inputs = cast("dict[str, torch.Tensor]", {**graph.inputs})
        expected = self.format.unpack(self.forward(inputs))
        graph.replay()
        found = self.format.unpack(graph.output)
        for name, rows in found.items():
            wanted = expected[name].float()
            if not (rows.float() - wanted).norm() <= _CLOSE * wanted.norm():
                raise RuntimeError(
                    f"a graph of {len(rows)} visual tokens has other {name} than the tower"
                )
        with torch.no_grad():
            plain = self._tower.run(inputs, frozenset())[FEATURES]
        return torch.equal(found[FEATURES], plain)

    def replay(self, inputs: dict[str, torch.Tensor]) -> Columns | None:
        """Return what the tower returns, bit for bit, from a graph that these inputs fill; None if
        there is none."""
        for graph in self._exact if self.ready else ():
            if all(_alike(graph.inputs[name], value) for name, value in inputs.items()):
                for name, value in inputs.items():
                    cast("torch.Tensor", graph.inputs[name]).copy_(value)
                graph.replay()
                return self.format.unpack(graph.output)
        return None

    def detach(self, manager: Any) -> None:
        """Stop using a manager that is about to release its graphs."""
        if self._manager is manager:
            self._manager, self._exact = None, []

    def encode(self, images: Sequence[EncoderImage]) -> Columns:
        """Return what `Tower.encode` returns for `needs`, image by image."""
        rows = self._manager.execute({IMAGES: list(images)})
        return self.format.unpack(rows[0] if len(rows) == 1 else torch.cat(rows))

    @torch.no_grad()
    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Run the tower on a batch, padded to a graph or not; return `[rows, format.width]`."""
        return self.format.pack(self._tower.run(inputs, self.needs))

    def scatter(
        self, output: torch.Tensor, indices: list[int], rows: list[int], dest: _Outputs
    ) -> None:
        """Store each image's rows in `dest`, from one copy: the next replay overwrites `output`."""
        lengths = [rows[index] for index in indices]
        used = output[: sum(lengths)].clone()
        for index, part in zip(indices, used.split(lengths), strict=True):
            dest[index] = part


def _alike(buffer: torch.Tensor | None, value: torch.Tensor) -> bool:
    """Return whether a value fills a buffer and is of its dtype."""
    return buffer is not None and buffer.shape == value.shape and buffer.dtype == value.dtype
