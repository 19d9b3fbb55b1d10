"""RADIO, Nemotron Nano VL's tower, for pictures of any shape and for tiles, which are pictures to
it. Before the patches of each its layers see tokens of its own: summaries, one for each model that
it was taught by, and registers.

Importance is what the summaries that the tower returns pay the patches of a token in the last
layer, their mean, added up before the pixel shuffle: each was trained to be a teacher's class
token. What is received is from the tower's own tokens too. Methods compare a token's patches,
normalised if the model does that first, and only kept tokens go through the projector: `encode` and
`project` split what `extract_feature` and `extract_feature_dynamic` do.

Pixels are `[tiles, 3, height, width]`, of a picture of any shape one tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from vtprune_kernels import cls_importance, column_importance

from vllm_pruner.layout.tile_layout import TileLayout
from vllm_pruner.methods.base import Need
from vllm_pruner.worker.merged_tower import Grids, MergedTower
from vllm_pruner.worker.packing import Packing

if TYPE_CHECKING:
    from vllm_pruner.tower import EncoderImage

__all__ = ["RadioTower"]


class RadioTower(MergedTower):
    """The tower of a model with Nemotron Nano VL's parts; see `Tower`."""

    layers, attention, norm = "model.encoder.layers", "attn.attn", "model.encoder"
    norm_returns = True

    def __init__(self, model: Any) -> None:
        """Find the layers.

        Args:
            model: vLLM's model, with a `vision_model` that takes `imgs_sizes` and returns summaries
                and patches, `mlp1`, and, from vLLM 0.32 on and possibly None, a
                `vision_final_layernorm`.

        Raises:
            RuntimeError: the tower lacks a module that `compat.tower` relies on.
        """
        tower, side = model.vision_model, round(1 / model.downsample_ratio)
        self._norm = getattr(model, "vision_final_layernorm", None)
        self._cut: Any = tower.model.patch_generator
        self._own: int = self._cut.num_skip
        """Tokens of the tower's own before the patches of a picture."""
        self._summaries = _summaries(tower.config.teachers, self._cut.num_cls_tokens)
        self._lengths: list[int] = []
        """Tokens in the tower of each picture of a call, its own ones included."""
        super().__init__(tower, model.mlp1, tower.config, (side, side))

    def grids(self, image: EncoderImage) -> Grids:
        layout = image.layout
        if isinstance(layout, TileLayout):
            return [(layout.side, layout.side)] * layout.crops
        return super().grids(image)

    def encoded(self, images: Sequence[EncoderImage], grids: Grids) -> torch.Tensor:
        patches = self.patches(grids)
        self._lengths = [self._own + rows * columns for rows, columns in patches]
        pixels = torch.cat([self._cut.im_to_patches(each.pixels).flatten(0, 1) for each in images])
        edge = self._cut.patch_size
        sizes = [(rows * edge, columns * edge) for rows, columns in patches]
        _, encoded = self.module(pixels[None], imgs_sizes=sizes)
        return encoded[0]  # type: ignore[no-any-return]

    def features(self, encoded: torch.Tensor, packing: Packing) -> torch.Tensor:
        patches = encoded if self._norm is None else self._norm(encoded)
        return packing.by_token(patches).flatten(1)

    def project(self, rows: torch.Tensor) -> torch.Tensor:
        projected: torch.Tensor = self._projector(rows)
        return projected

    def _read(self, need: Need, layer: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        """See `Packing.read`; query and key are `[1, tokens in the tower, heads * size]`."""
        if need == Need.KEYS:
            heads = key[0].unflatten(1, (layer.num_heads, -1)).float()
            return self._packing.by_token(self._patches(heads.mean(dim=1))).mean(dim=1)
        if need == Need.IMPORTANCE:
            return self._packing.sums(self._paid(layer, query[0], key[0]))
        whole = Packing.of(self._lengths, 1, None, query.device)
        received = column_importance(
            query[0], key[0], layer.num_heads, layer.scale, whole.cu_seqlens, whole.longest
        )
        return self._packing.sums(self._patches(received))

    def _paid(self, layer: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        """Return `[patches]`, what the summaries pay them, pictures of one size in one call."""
        paid, start = [], 0
        for length, alike in groupby(self._lengths):
            count = len(list(alike))
            places = slice(start, start := start + count * length)
            queries, keys = (each[places].unflatten(0, (count, length)) for each in (query, key))
            each = [
                # Of the queries it reads the first; it leaves out the first key's share.
                cls_importance(
                    queries[:, at : at + 1].expand_as(keys), keys, layer.num_heads, layer.scale
                )
                for at in self._summaries
            ]
            paid.append(torch.stack(each).mean(dim=0)[:, self._own - 1 :].flatten())
        return torch.cat(paid)

    def _fold(self, norms: torch.Tensor) -> torch.Tensor:
        return super()._fold(self._patches(norms.flatten()))

    def _patches(self, values: torch.Tensor) -> torch.Tensor:
        """Return `[patches, ...]`, given `[tokens in the tower, ...]`."""
        return torch.cat([each[self._own :] for each in values.split(self._lengths)])


def _summaries(teachers: Sequence[dict[str, Any]], known: int) -> list[int]:
    """Return which of the tower's `known` summaries it returns; all if nothing is said."""
    used = [place for place, each in enumerate(teachers) if each.get("use_summary", True)]
    return used or list(range(known))
