"""A vision transformer whose patches are merged into tokens by pixel shuffle (InternVL, SmolVLM),
which may be its own last step (Llama 4), or averaged (Gemma 3).

An image is one tile or several; the tower attends within a tile. The features of a square of
patches, concatenated or averaged, form a token, which the projector takes. Attention and keys are
read before that and folded into tokens: a token's received attention is the sum over its patches,
its key their mean. The model's own `pixel_shuffle`, or `squares`, orders features and scores alike.
Importance is the class token's attention or, without a class token, the attention received in the
last layer.

Pixels are `[tiles, 3, height, width]`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isqrt
from typing import TYPE_CHECKING, Any

import torch

from vllm_pruner import compat
from vllm_pruner.methods.base import Need
from vllm_pruner.tower import FEATURES, Columns
from vllm_pruner.worker.captured_crops import PIXELS, CapturedCrops
from vllm_pruner.worker.columns import columns_of
from vllm_pruner.worker.probe import (
    AttentionProbe,
    MergerInput,
    class_first,
    crop_reader,
    layers_by_need,
)

if TYPE_CHECKING:
    from vllm_pruner.tower import EncoderImage

__all__ = ["ShuffleTower", "squares"]


def squares(patches: torch.Tensor, side: int) -> torch.Tensor:
    """Concatenate the patches of each square of `side` x `side`: return `[tiles, rows / side,
    columns / side, side * side * D]`, given `[tiles, rows, columns, D]`."""
    parts: torch.Tensor = patches.unflatten(2, (-1, side)).unflatten(1, (-1, side))
    return parts.transpose(2, 3).flatten(3)


class ShuffleTower(CapturedCrops):
    """The tower of a model that merges squares of patches; see `CapturedTower`."""

    own_width: int | None = None

    def __init__(
        self,
        module: Any,
        projector: Callable[[torch.Tensor], torch.Tensor],
        shuffle: Callable[[torch.Tensor], torch.Tensor],
        *,
        layers: str,
        attention: str,
        norm: str,
        token: int,
        page: int,
        has_class_token: bool,
        class_token_last: bool = False,
        pool: Callable[[torch.Tensor], torch.Tensor] | None = None,
        merged: int | None = None,
    ) -> None:
        """Find the layers.

        Args:
            module: the tower, with its `config`; it takes the pixels alone and returns `[tiles,
                patches, D]`, preceded by a class token if there is one.
            projector: projects the features of tokens.
            shuffle: merges patches `[tiles, rows, columns, D]` into tokens `[tiles, ..., token *
                D]`, in raster order.
            layers: path of the tower's list of layers; see `compat.tower_attention`.
            attention: path of the attention module in a layer.
            norm: path of the norm that ends the tower, if it has one.
            token: number of patches in a token.
            page: number of tokens in a tile.
            has_class_token: whether the tower has a class token.
            class_token_last: whether its layers see it behind the patches.
            pool: averages patches `[tiles, D, rows, columns]` to tokens; None if their features are
                concatenated.
            merged: width of tokens that the tower itself merges, in raster order, and returns in
                place of patches; None if it returns patches.

        Raises:
            RuntimeError: the tower lacks a module that `compat.tower` relies on.
        """
        self.module, self._projector, self._shuffle = module, projector, shuffle
        self._config, self._pool, self._merged = module.config, pool, merged
        self.patches_per_row, self.page = token, page
        found = layers_by_need(
            lambda layer: compat.tower_attention(module, layers, layer, attention),
            len(module.get_submodule(layers)),
        )
        last = compat.last_norm(module, norm, "")
        fold = class_first if class_token_last else torch.Tensor.contiguous
        merger = MergerInput(last, last is module, fold)
        read = crop_reader(has_class_token, class_token_last)
        heads = self._config.num_attention_heads
        self._probe = AttentionProbe(found, heads, read, merger)

    def project(self, rows: torch.Tensor) -> torch.Tensor:
        projected: torch.Tensor = self._projector(rows)
        return projected

    def columns(self, needs: frozenset[Need]) -> dict[str, tuple[int, torch.dtype]]:
        width = self._config.hidden_size
        head_size = width // self._config.num_attention_heads
        each = width if self._pool else width * self.patches_per_row
        return columns_of(self.module, self._merged or each, head_size, needs)

    def encode(self, images: Sequence[EncoderImage], needs: frozenset[Need]) -> Columns:
        return self.run(self.inputs(images), needs)

    @torch.no_grad()
    def run(self, inputs: dict[str, torch.Tensor], needs: frozenset[Need]) -> Columns:
        with self._probe.capture(needs) as captured:
            features = self._features(self.module(inputs[PIXELS]))
        columns = {str(need): self._fold(need, values) for need, values in captured.items()}
        return {name: rows.flatten(0, 1) for name, rows in {FEATURES: features, **columns}.items()}

    def _features(self, patches: torch.Tensor) -> torch.Tensor:
        """Return `[tiles, tokens, width]`, given the tower's output."""
        if self._merged is not None:
            return patches
        if self._pool is None:
            return self._shuffled(patches).flatten(2)
        side = isqrt(patches.shape[1])
        grid = patches.transpose(1, 2).unflatten(2, (side, side)).contiguous()
        return self._pool(grid).flatten(2).transpose(1, 2).contiguous()

    def _shuffled(self, patches: torch.Tensor) -> torch.Tensor:
        """Group `[tiles, patches, D]`, with or without a class token before the patches, by token:
        `[tiles, tokens, patches of a token, D]`."""
        side = isqrt(patches.shape[1])
        square = patches[:, -(side**2) :].unflatten(1, (side, side)).contiguous()
        grid = self._shuffle(square).flatten(1, -2)
        tokens: torch.Tensor = grid.unflatten(2, (self.patches_per_row, -1))
        return tokens

    def _fold(self, need: Need, values: torch.Tensor) -> torch.Tensor:
        """Reduce what the probe captured over all ranks; fold it into `[tiles, tokens, ...]`."""
        values = self._probe.reduce(need, values)
        if need == Need.KEYS:
            return self._shuffled(values).mean(dim=2)
        scores: torch.Tensor = self._shuffled(values.unsqueeze(2)).sum(dim=(2, 3))
        return scores
