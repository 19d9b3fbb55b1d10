"""Step's towers, which see a whole picture and square windows of it, each alone, and behind whose
layers convolutions halve the grid of patches twice: a token is what they make of 7 x 7 patches or
fewer, which it shares with its neighbours.

Attention and keys are read in the tower's layers and pooled to tokens by the mean over the places
that the convolutions look at, of those within the picture. Importance is the class token's
attention or, without one, the attention received in the last layer. Methods compare tokens as they
leave the convolutions; only kept ones are projected.

Pixels are `[1, 3, height, width]` of the whole picture, windows beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any, NamedTuple

import torch
from torch.nn.functional import avg_pool2d

from vllm_pruner import compat
from vllm_pruner.methods.base import Need
from vllm_pruner.tower import FEATURES, Columns, EncoderImage
from vllm_pruner.worker.columns import columns_by_size, columns_of
from vllm_pruner.worker.packed_tower import PAGE
from vllm_pruner.worker.probe import AttentionProbe, MergerInput, crop_reader, layers_by_need

__all__ = ["Halving", "StepTower", "WindowedImage"]


@dataclass(frozen=True, slots=True, eq=False)
class WindowedImage(EncoderImage):
    """A picture with windows of another size than its own."""

    windows: torch.Tensor
    """`[windows, 3, height, width]`, whose tokens stand before the whole picture's."""


class Halving(NamedTuple):
    """What places a convolution looks at that halves a grid."""

    kernel: int
    padding: int


class StepTower:
    """The tower of a Step; see `Tower`."""

    own_width: int | None = None
    page = PAGE
    patches_per_row = 16

    def __init__(
        self,
        module: Any,
        encode: Callable[[torch.Tensor], torch.Tensor],
        project: Callable[[torch.Tensor], torch.Tensor],
        *,
        layers: str,
        attention: str,
        norm: str,
        heads: int,
        width: int,
        halvings: Sequence[Halving],
        has_class_token: bool,
    ) -> None:
        """Find the layers.

        Args:
            module: the tower.
            encode: returns tokens `[pictures, tokens, width]`, given pixels `[pictures, 3, height,
                width]`, by one call of `module`.
            project: brings them into the decoder's space.
            layers: path of the tower's list of layers; see `compat.tower_attention`.
            attention: path of the attention module in a layer.
            norm: path of what gets the patches behind the last layer; empty if the tower returns
                them.
            heads: number of heads of a layer.
            width: width of a token.
            halvings: the convolutions, in order.
            has_class_token: whether a class token stands before the patches.

        Raises:
            RuntimeError: the tower lacks a module that `compat.tower` relies on.
        """
        self.module, self._encode, self._project = module, encode, project
        self._width, self._halvings = width, halvings
        found = layers_by_need(
            lambda layer: compat.tower_attention(module, layers, layer, attention),
            len(module.get_submodule(layers)),
        )
        self._head_size: int = found[Need.KEYS].head_size
        last = compat.last_norm(module, norm)
        merger = MergerInput(last, last is module)
        self._probe = AttentionProbe(found, heads, crop_reader(has_class_token), merger)

    def project(self, rows: torch.Tensor) -> torch.Tensor:
        return self._project(rows)

    def columns(self, needs: frozenset[Need]) -> dict[str, tuple[int, torch.dtype]]:
        return columns_of(self.module, self._width, self._head_size, needs)

    @torch.no_grad()
    def encode(self, images: Sequence[EncoderImage], needs: frozenset[Need]) -> Columns:
        pieces = [piece for image in images for piece in _pieces(image)]
        sizes = [piece.shape[-1] for piece in pieces]
        return columns_by_size(pieces, sizes, lambda alike, _: self._encoded(alike, needs))

    def _encoded(self, pieces: Sequence[torch.Tensor], needs: frozenset[Need]) -> Columns:
        """Return the columns `[pieces, tokens, ...]` of windows, or whole pictures."""
        with self._probe.capture(needs) as captured:
            features = self._encode(torch.stack([*pieces]))
        columns = self._probe.columns(captured)
        return {FEATURES: features} | {name: self._pooled(each) for name, each in columns.items()}

    def _pooled(self, values: torch.Tensor) -> torch.Tensor:
        """Return `[pieces, tokens, ...]`, given `[pieces, patches, ...]`, which class tokens may
        precede."""
        side = isqrt(values.shape[1])
        of_patches = values[:, -(side**2) :].reshape(len(values), side, side, -1)
        grid = of_patches.permute(0, 3, 1, 2)
        for each in self._halvings:
            grid = avg_pool2d(grid, each.kernel, 2, each.padding, count_include_pad=False)
        tokens = grid.flatten(2).transpose(1, 2).contiguous()
        return tokens if values.ndim > 2 else tokens.squeeze(2)


def _pieces(image: EncoderImage) -> list[torch.Tensor]:
    """Return the pixels of each window and of the whole picture, in the order of their tokens."""
    assert isinstance(image, WindowedImage)
    return [*image.windows, *image.pixels]
