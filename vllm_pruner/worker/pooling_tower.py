"""A vision transformer for crops of one size, whose patches are pooled by attention: Molmo2's.

Behind the tower, what its crops share is left out and a token is pooled of a square of patches, of
which some may be beyond the picture's edge. A token's received attention is the sum over its
patches, its key their mean. Importance is the attention received in the last layer that is run, as
there is no class token. Methods compare pooled tokens; only kept ones are projected: `encode` and
`project` split what `Molmo2VisionBackbone.forward` does in one pass, of vLLM 0.32.

Pixels are `[crops, patches, 3 * P * P]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch

from vllm_pruner import compat
from vllm_pruner.methods.base import Need
from vllm_pruner.tower import FEATURES, Columns, EncoderImage
from vllm_pruner.worker.columns import columns_of
from vllm_pruner.worker.packed_tower import PAGE
from vllm_pruner.worker.probe import AttentionProbe, crop_reader, layers_by_need

__all__ = ["PooledImage", "PoolingTower"]

_LAYERS, _ATTENTION = "transformer.resblocks", "attention.attn"


@dataclass(frozen=True, slots=True, eq=False)
class PooledImage(EncoderImage):
    """An image of crops whose patches its tokens choose."""

    pooling: torch.Tensor
    """`[tokens, patches of a token]` int64: the patches of each, counted over all crops of the
    image; -1 where there is none."""


class PoolingTower:
    """The tower of a model with Molmo2's `vision_backbone`; see `Tower`."""

    own_width: int | None = None

    def __init__(self, model: Any) -> None:
        """Find the layers.

        Args:
            model: vLLM's model.

        Raises:
            RuntimeError: the tower lacks a module that `compat.tower` relies on.
        """
        self._backbone, self.page = model.vision_backbone, PAGE
        self.module = self._backbone.image_vit
        self.patches_per_row = 4
        self._config = self._backbone.vit_config
        found = layers_by_need(
            lambda layer: compat.tower_attention(self.module, _LAYERS, layer, _ATTENTION),
            len(self.module.get_submodule(_LAYERS)),
        )
        heads = self._config.num_attention_heads
        self._probe = AttentionProbe(found, heads, crop_reader(has_class_token=False))

    def project(self, rows: torch.Tensor) -> torch.Tensor:
        projected: torch.Tensor = self._backbone.image_projector(rows)
        return projected

    def columns(self, needs: frozenset[Need]) -> dict[str, tuple[int, torch.dtype]]:
        width = self._backbone.adapter_config.hidden_size
        return columns_of(self.module, width, self._config.head_dim, needs)

    @torch.no_grad()
    def encode(self, images: Sequence[EncoderImage], needs: frozenset[Need]) -> Columns:
        pixels = torch.cat([image.pixels for image in images])
        pixels = pixels.to(self._backbone.device, self._backbone.dtype)
        pooling = _of_batch(images).to(pixels.device)
        with self._probe.capture(needs - {Need.MERGER_NORM}) as captured:
            patches = self._backbone.encode_image(pixels.unsqueeze(0)).flatten(0, 2)
        columns = {FEATURES: self._pooled(patches, pooling)}
        for name, values in self._probe.columns(captured).items():
            columns[name] = _folded(values.flatten(0, 1), pooling, is_mean=name == Need.KEYS)
        if Need.MERGER_NORM in needs:
            norms = torch.linalg.vector_norm(patches, dim=-1, dtype=torch.float32)
            columns[Need.MERGER_NORM] = _folded(norms, pooling)
        return columns

    def _pooled(self, patches: torch.Tensor, pooling: torch.Tensor) -> torch.Tensor:
        """Return `[tokens, D]` of patches `[patches, D']`: a token asks with the mean of its
        patches. As in vLLM, missing ones are among those it looks at, as zeros, if there is no
        mask."""
        there = pooling >= 0
        squares = patches[pooling.clamp(min=0)] * there.unsqueeze(2).to(patches.dtype)
        if not self._backbone.adapter_config.pooling_attention_mask:
            query, mask = squares.mean(dim=1, keepdim=True), None
        else:
            number = there.sum(dim=1).clamp(min=1).view(-1, 1, 1)
            query = squares.sum(dim=1, keepdim=True) / number.to(patches.dtype)
            mask = there.view(len(there), 1, 1, -1)
        pooled: torch.Tensor = self._backbone.image_pooling_2d(query, squares, attn_mask=mask)
        return pooled.squeeze(1)


def _of_batch(images: Sequence[EncoderImage]) -> torch.Tensor:
    """Return the patches of the tokens of all images, counted over the crops of all of them."""
    counts = [image.pixels.shape[0] * image.pixels.shape[1] for image in images]
    parts = []
    for image, start in zip(images, accumulate(counts, initial=0), strict=False):
        assert isinstance(image, PooledImage)
        parts.append(torch.where(image.pooling >= 0, image.pooling + start, -1))
    return torch.cat(parts)


def _folded(values: torch.Tensor, pooling: torch.Tensor, is_mean: bool = False) -> torch.Tensor:
    """Return the sums, or the means, over the patches of each token, `[tokens, ...]`."""
    there = (pooling >= 0).view(*pooling.shape, *[1] * (values.dim() - 1)).to(values.dtype)
    sums: torch.Tensor = (values[pooling.clamp(min=0)] * there).sum(dim=1)
    return sums / there.sum(dim=1) if is_mean else sums
