"""Crops of one size in CUDA graphs. A graph holds a fixed number of crops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from vllm_pruner.tower import Pad

if TYPE_CHECKING:
    from vllm_pruner.tower import EncoderImage

__all__ = ["PIXELS", "CapturedCrops"]

_GRAPHS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)
"""Crops of the CUDA graphs. From sixteen crops of CLIP-L on, an H200 is busy for as long as the
host needs to launch the kernels (2026-11-27); larger batches replay several graphs. At most a
quarter of a graph is padding."""

PIXELS = "pixel_values"


class CapturedCrops:
    """The part of `CapturedTower` that is the same for every tower that attends within a crop."""

    padding: Mapping[str, Pad | None] = {PIXELS: None}

    page: int
    """Rows per crop."""

    _config: Any
    """The tower's configuration; `image_size` is the side of a square, or height and width."""

    def inputs(
        self, images: Sequence[EncoderImage], room: int | None = None
    ) -> dict[str, torch.Tensor]:
        pixels = [image.pixels for image in images]
        return {PIXELS: pixels[0] if len(pixels) == 1 else torch.cat(pixels)}

    def captures(self, image: EncoderImage) -> bool:
        return True

    def graph_rows(self, at_most: int) -> list[int]:
        crops = max(1, at_most // self.page)
        return [number * self.page for number in _GRAPHS if number <= crops]

    def blank(
        self, rows: int, images: int, device: torch.device, dtype: torch.dtype
    ) -> dict[str, torch.Tensor]:
        size = self._config.image_size
        height, width = (size, size) if isinstance(size, int) else size
        shape = max(1, rows // self.page), 3, height, width
        return {PIXELS: torch.zeros(shape, device=device, dtype=dtype)}
