"""A model that asks a tower of crops for features (LLaVA), with graphs also where nothing is
pruned."""

from __future__ import annotations

from typing import Any

import torch

from vllm_pruner.tower import FEATURES
from vllm_pruner.worker.captured_crops import PIXELS
from vllm_pruner.worker.captured_model import CapturedModel

__all__ = ["CropModel"]


class CropModel(CapturedModel):
    """A `CapturedModel` whose vLLM class has `_image_pixels_to_features`.

    Own change: where no image is pruned, vLLM's own method runs as it is, but as many crops as a
    graph has are encoded by that graph, if it was seen to change no bit. So at rate 0 the host has
    as little to launch for the tower as under pruning, and the output is that of stock vLLM.
    """

    _is_unpruned = False

    def embed_unpruned(self, **kwargs: object) -> Any:
        self._is_unpruned = True
        try:
            return super().embed_unpruned(**kwargs)
        finally:
            self._is_unpruned = False

    def _image_pixels_to_features(self, vision_tower: Any, pixel_values: Any) -> Any:
        """Return the features `[crops, N, D]` of crops; called by vLLM's class."""
        if self._is_unpruned and isinstance(pixel_values, torch.Tensor):
            columns = self._graphs.replay({PIXELS: pixel_values})
            if columns is not None:
                return columns[FEATURES].unflatten(0, (len(pixel_values), -1))
        return self.stock_features(vision_tower, pixel_values)

    def stock_features(self, vision_tower: Any, pixel_values: Any) -> Any:
        """Return them without graphs; called by the tower, also to capture it."""
        stock: Any = super()
        return stock._image_pixels_to_features(vision_tower, pixel_values)
