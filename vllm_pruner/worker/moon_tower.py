"""MoonViT, which takes images of any resolution, packed into one sequence.

Patches attend within their image, in raster order. Behind it the features of 2 x 2 patches stand
one behind the other as a token, which the projector takes. What methods read is taken before that
and folded into tokens (`packing`); they compare the normalised features of a token's patches, and
only kept tokens are projected: `encode` and `project` do in two halves what the `forward` of
`KimiVLMultiModalProjector` does in one.

Pixels are `[patches, 3, P, P]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from vllm_pruner import compat
from vllm_pruner.methods.base import Need
from vllm_pruner.tower import FEATURES, Columns
from vllm_pruner.worker.columns import columns_of
from vllm_pruner.worker.packed_tower import PAGE
from vllm_pruner.worker.packing import Packing
from vllm_pruner.worker.probe import AttentionProbe, layers_by_need

if TYPE_CHECKING:
    from vllm_pruner.tower import EncoderImage

__all__ = ["MoonTower"]

_LAYERS, _ATTENTION = "encoder.blocks", "attn"


class MoonTower:
    """The tower of a model with Kimi-VL's projector; see `Tower`."""

    own_width: int | None = None

    def __init__(self, model: Any) -> None:
        """Find the layers.

        Args:
            model: has `vision_tower`, a MoonViT with `prepare_encoder_metadata`, and
                `multi_modal_projector` with `pre_norm`, `linear_1`, `act` and `linear_2`.

        Raises:
            RuntimeError: the tower is not built as `compat` knows it.
        """
        self.module, self._projector = model.vision_tower, model.multi_modal_projector
        self.page, self._config = PAGE, model.config.vision_config
        self._down, self._across = self._config.merge_kernel_size
        self.patches_per_row = self._down * self._across
        found = layers_by_need(self._attention, len(self.module.get_submodule(_LAYERS)))
        self._packing: Packing | None = None
        self._probe = AttentionProbe(found, self._config.num_attention_heads, self._read)

    def _attention(self, layer: int) -> Any:
        return compat.tower_attention(self.module, _LAYERS, layer, _ATTENTION)

    def project(self, rows: torch.Tensor) -> torch.Tensor:
        hidden, _ = self._projector.linear_1(rows)
        projected: torch.Tensor = self._projector.linear_2(self._projector.act(hidden))[0]
        return projected

    def columns(self, needs: frozenset[Need]) -> dict[str, tuple[int, torch.dtype]]:
        width = self._config.hidden_size
        head_size = width // self._config.num_attention_heads
        return columns_of(self.module, width * self.patches_per_row, head_size, needs)

    @torch.no_grad()
    def encode(
        self,
        images: Sequence[EncoderImage],
        needs: frozenset[Need],
        small_grid: tuple[int, int] | None = None,
    ) -> Columns:
        assert small_grid is None, "check_method refuses methods that shrink"
        grids = [image.layout.whole_grid or (0, 0) for image in images]
        device = next(self.module.parameters()).device
        self._packing = Packing.of_rasters(grids, (self._down, self._across), device)
        patches = [(rows * self._down, columns * self._across) for rows, columns in grids]
        metadata = self.module.prepare_encoder_metadata(patches)
        pixels = torch.cat([image.pixels for image in images])
        with self._probe.capture(needs) as captured:
            tokens = self.module(pixels, None, encoder_metadata=metadata)
        columns = {str(need): self._probe.reduce(values) for need, values in captured.items()}
        return {FEATURES: self._projector.pre_norm(tokens).flatten(1), **columns}

    def _read(self, need: Need, layer: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        assert self._packing is not None
        return self._packing.read(need, layer, query, key)
