"""Gemma 4's tower, which vLLM runs by `transformers`: patches in raster order, padded to a batch,
and averaged to tokens.

Patches attend within their image. Attention and keys are read in the last layer and folded into
tokens (`packing`). Methods compare tokens as they leave the pooler, and only kept ones go through
the embedder, which normalises and projects them. A batch is padded to its largest image, in as many
calls as it takes for none to have more patches, with padding, than the batch has without: vLLM's
memory profile sees images that fill their grid.

Pixels are `[patches, 3 * P * P]`, of which those beyond the layout's are padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import pad

from vllm_pruner import compat
from vllm_pruner.methods.base import Need
from vllm_pruner.methods.on_device import on_device
from vllm_pruner.tower import FEATURES, Columns
from vllm_pruner.worker.columns import columns_of, device_of
from vllm_pruner.worker.packed_tower import PAGE
from vllm_pruner.worker.packing import Packing
from vllm_pruner.worker.probe import AttentionProbe, MergerInput, layers_by_need

if TYPE_CHECKING:
    from vllm_pruner.tower import EncoderImage

__all__ = ["PooledTower"]

_LAYERS, _ATTENTION = "encoder.layers", "self_attn"


class PooledTower:
    """The tower of a model with Gemma 4's parts; see `Tower`."""

    own_width: int | None = None

    _packing: Packing
    """How the images of the call are packed that is running."""

    def __init__(self, model: Any) -> None:
        """Find the layers.

        Args:
            model: vLLM's model, with `vision_tower`, `embed_vision` and `model_dtype`.

        Raises:
            RuntimeError: the tower lacks a module that `compat.hf_tower` relies on.
        """
        self.module, self._embedder = model.vision_tower, model.embed_vision
        self.page, self._config, self._dtype = PAGE, model.config.vision_config, model.model_dtype
        self._side: int = self._config.pooling_kernel_size
        self.patches_per_row = self._side**2
        self._counts: list[int] = []
        depth = len(self.module.get_submodule(_LAYERS))
        found = layers_by_need(self._attention, depth)
        last = compat.last_norm(self.module, f"{_LAYERS}.{depth - 1}")
        merger = MergerInput(last, True, self._fold)
        self._probe = AttentionProbe(found, self._config.num_attention_heads, self._read, merger)

    def _attention(self, layer: int) -> Any:
        return compat.hf_attention(self.module, _LAYERS, layer, _ATTENTION)

    def project(self, rows: torch.Tensor) -> torch.Tensor:
        projected: torch.Tensor = self._embedder(inputs_embeds=rows)
        return projected

    def columns(self, needs: frozenset[Need]) -> dict[str, tuple[int, torch.dtype]]:
        width = self._config.hidden_size
        columns = columns_of(self.module, width, self._config.head_dim, needs)
        return {**columns, FEATURES: (width, self._dtype)}

    @torch.no_grad()
    def encode(self, images: Sequence[EncoderImage], needs: frozenset[Need]) -> Columns:
        parts = [self._encoded(some, needs) for some in self._calls(images)]
        if len(parts) == 1:
            return parts[0]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _calls(self, images: Sequence[EncoderImage]) -> list[Sequence[EncoderImage]]:
        """Return the images of each call of the tower, in order."""
        tokens = [image.layout.encoded for image in images]
        calls = -(-len(images) * max(tokens) // sum(tokens))
        each = -(-len(images) // calls)
        return [images[start : start + each] for start in range(0, len(images), each)]

    def _encoded(self, images: Sequence[EncoderImage], needs: frozenset[Need]) -> Columns:
        """Return the columns of images, from one call."""
        grids = [image.layout.whole_grid or (0, 0) for image in images]
        device = device_of(self.module)
        self._packing = Packing.of_rasters(grids, (self._side, self._side), device)
        self._counts = [rows * columns * self.patches_per_row for rows, columns in grids]
        length = max(self._counts)
        pixels = torch.stack([_of_length(image.pixels, length) for image in images])
        wide = [columns * self._side for _, columns in grids]
        places = _places(self._counts, wide, length, device)
        with self._probe.capture(needs) as captured:
            features = self._pooled(pixels, places)
        return {FEATURES: features, **self._probe.columns(captured)}

    def _pooled(self, pixels: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Return `[tokens, width]`, as stock's `_process_image_input` has them before the embedder.

        The pooler averages the patches of a token by multiplying all of an image with a matrix of
        zeros and ninths; here they are gathered.

        Args:
            pixels: `[images, patches, 3 * P * P]`.
            places: `[images, patches, 2]` int64, column and row; -1 for padding.
        """
        tower = self.module
        padding = (places < 0).all(dim=-1)
        embeds = tower.patch_embedder(pixels, places, padding).to(self._dtype)
        is_full = all(count == pixels.shape[1] for count in self._counts)
        mask = None if is_full else _mask(padding, embeds.dtype)
        encoded = tower.encoder(
            inputs_embeds=embeds, attention_mask=mask, pixel_position_ids=places
        ).last_hidden_state
        means = self._packing.by_token(self._unpadded(encoded)).float().mean(dim=1)
        features: torch.Tensor = means.to(encoded.dtype).float() * tower.pooler.root_hidden_size
        if self._config.standardize:
            features = (features - tower.std_bias) * tower.std_scale
        return features.to(self._dtype)

    def _unpadded(self, patches: torch.Tensor) -> torch.Tensor:
        """Return `[patches, ...]` of all images without padding, given `[images, patches, ...]`."""
        return torch.cat([each[:count] for each, count in zip(patches, self._counts, strict=True)])

    def _read(self, need: Need, layer: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        rows = (self._unpadded(each).unsqueeze(0) for each in (query, key))
        return self._packing.read(need, layer, *rows)

    def _fold(self, norms: torch.Tensor) -> torch.Tensor:
        return self._packing.sums(self._unpadded(norms))


def _mask(padding: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return what is added to logits, `[images, 1, 1, patches]`: transformers takes four dimensions
    as they are, but of a mask with two it asks the host whether it hides anything."""
    mask = torch.zeros_like(padding, dtype=dtype)
    return mask.masked_fill_(padding, torch.finfo(dtype).min)[:, None, None]


def _of_length(pixels: torch.Tensor, length: int) -> torch.Tensor:
    """Return an image's patches with so many of them in all that the rest is padding."""
    missing = length - len(pixels)
    return pad(pixels, (0, 0, 0, missing)) if missing > 0 else pixels[:length]


def _places(
    counts: Sequence[int], wide: Sequence[int], length: int, device: torch.device
) -> torch.Tensor:
    """Return `[images, length, 2]` int64, the column and the row of each patch; -1 for padding. The
    host computes them, as in `packing`.

    Args:
        counts: patches of each image.
        wide: those in a row of it.
        length: patches with padding.
        device: where they go.
    """
    places = np.full((len(counts), length, 2), -1)
    for place, count, columns in zip(places, counts, wide, strict=True):
        row, column = np.divmod(np.arange(count), columns)
        place[:count] = np.stack([column, row], axis=1)
    return on_device(places, device)
