"""SigLIP for slices of any size, and learned queries that look at its patches: MiniCPM-V with a
resampler.

A token is what one query takes from the patches of its slice by cross-attention (vLLM's
`BaseResampler`). Methods compare what the resampler returns, which is in the decoder's space
already. So `project` has nothing left to do, and all tokens go through the resampler's last matrix,
next to nothing beside the tower.

What is read of a patch in the tower is carried to the tokens by the weights of that attention,
`[queries, patches]`, the mean of its heads: a token's importance is the mean of what patches
receive in the tower's last layer (it has no class token), each weighted as much as the query looks
at it; its key likewise. So a query matters as far as it looks where the tower looks. The weights
alone would say nothing of queries, each of which spends 1.

Stock vLLM pads the slices of a batch to the longest and masks the rest. Here slices of one size are
a call of the tower, which needs neither.

Pixels are `[slices, 3, P, patches * P]`: the patches of a slice in raster order, beside each other;
a shorter slice of an image is padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from vllm_pruner import compat
from vllm_pruner.methods.base import Need
from vllm_pruner.methods.on_device import on_device
from vllm_pruner.tower import FEATURES, Columns, EncoderImage
from vllm_pruner.worker.columns import columns_by_size, columns_of
from vllm_pruner.worker.probe import AttentionProbe, crop_reader, layers_by_need

__all__ = ["ResamplerTower", "SlicedImage"]

_LAYERS, _ATTENTION = "encoder.layers", "self_attn.attn"


@dataclass(frozen=True, slots=True, eq=False)
class SlicedImage(EncoderImage):
    """An image whose slices have sizes that its layout does not tell."""

    sizes: tuple[tuple[int, int], ...]
    """Rows and columns of patches of the whole picture and of each slice."""


class ResamplerTower:
    """The tower of a model with MiniCPM-V's `vpm` and `resampler`; see `Tower`."""

    own_width: int | None = None

    def __init__(self, model: Any) -> None:
        """Find the layers.

        Args:
            model: vLLM's model, with `vpm` and `resampler`.

        Raises:
            RuntimeError: the tower lacks a module that `compat.tower` relies on.
        """
        self.module, self._resampler = model.vpm, model.resampler
        self._config, self.page = model.config.vision_config, model.config.query_num
        side = getattr(model.config, "image_size", 448)  # of a square slice, by vLLM's rule
        patches = (side // self._config.patch_size) ** 2
        self.patches_per_row = max(1, patches // self.page)
        self._looks = compat.cross_attention(self._resampler)
        found = layers_by_need(
            lambda layer: compat.tower_attention(self.module, _LAYERS, layer, _ATTENTION),
            len(self.module.get_submodule(_LAYERS)),
        )
        heads = self._config.num_attention_heads
        self._probe = AttentionProbe(found, heads, crop_reader(has_class_token=False))

    def project(self, rows: torch.Tensor) -> torch.Tensor:
        return rows

    def columns(self, needs: frozenset[Need]) -> dict[str, tuple[int, torch.dtype]]:
        head_size = self._config.hidden_size // self._config.num_attention_heads
        return columns_of(self.module, self._resampler.embed_dim, head_size, needs)

    @torch.no_grad()
    def encode(self, images: Sequence[EncoderImage], needs: frozenset[Need]) -> Columns:
        sizes = [size for image in images for size in _sizes(image)]
        slices = [piece for image in images for piece in image.pixels]
        return columns_by_size(slices, sizes, partial(self._encoded, needs=needs))

    def _encoded(
        self, slices: Sequence[torch.Tensor], size: tuple[int, int], needs: frozenset[Need]
    ) -> Columns:
        """Return the columns `[slices, queries, ...]` of slices of one size."""
        length = size[0] * size[1] * slices[0].shape[1]
        pixels = torch.stack([piece[..., :length] for piece in slices])
        with self._probe.capture(needs) as captured:
            patches = self._patches(pixels, size)
        here = torch.tensor([size] * len(slices), device="cpu")  # where stock vLLM has sizes
        with compat.weights_of(self._looks) as looks:
            features: torch.Tensor = self._resampler(patches, here)
        of_patches = self._probe.columns(captured)
        return {FEATURES: features} | {n: _carried(v, looks[0]) for n, v in of_patches.items()}

    def _patches(self, pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Return `[slices, patches, D]`, as the model's `vpm` does without a mask."""
        count, device = len(pixels), pixels.device
        every = torch.ones(count, 1, size[0] * size[1], dtype=torch.bool, device=device)
        sizes = on_device([size] * count, device)
        hidden = self.module.embeddings(pixels, patch_attention_mask=every, tgt_sizes=sizes)
        normalised: torch.Tensor = self.module.post_layernorm(self.module.encoder(hidden))
        return normalised


def _sizes(image: EncoderImage) -> tuple[tuple[int, int], ...]:
    assert isinstance(image, SlicedImage)
    return image.sizes


def _carried(values: torch.Tensor, looks: torch.Tensor) -> torch.Tensor:
    """Return what queries see of `values` of patches, `[slices, queries, ...]` float32.

    Args:
        values: `[slices, patches, ...]` float32.
        looks: `[slices, queries, patches]`, how much each query looks at each patch: 1 together.
    """
    rows = values if values.dim() == 3 else values.unsqueeze(2)
    carried = torch.bmm(looks.float(), rows)
    return carried if values.dim() == 3 else carried.squeeze(2)
