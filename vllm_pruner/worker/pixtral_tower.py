"""Pixtral's tower, which takes images of any resolution, packed into one sequence.

Patches attend within their image, in raster order. After the tower a merger concatenates the
features of 2 x 2 patches into a token, which the projector takes. Attention and keys are read
before that and folded into tokens (`packing`); methods compare the normalised features of a token's
patches, and only kept tokens are projected: `encode` and `project` split what the `forward` of
`Mistral3MultiModalProjector` and `Mistral3PatchMerger` does in one pass.

Pixels are `[3, height, width]`.
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

__all__ = ["PixtralTower"]

_LAYERS, _ATTENTION = "transformer.layers", "attention.attn"


class PixtralTower:
    """The tower of a model with Mistral3's projector; see `Tower`."""

    own_width: int | None = None

    def __init__(self, model: Any) -> None:
        """Find the layers.

        Args:
            model: vLLM's model, with a `vision_tower` that is built up to the feature layer, and a
                `multi_modal_projector` with `norm`, `patch_merger`, `linear_1`, `act` and
                `linear_2`.

        Raises:
            RuntimeError: the tower lacks a module that `compat.tower` relies on.
        """
        self.module, self._projector = model.vision_tower, model.multi_modal_projector
        self.page, self._merge = PAGE, int(model.config.spatial_merge_size)
        self.patches_per_row = self._merge**2
        self._config = self.module.config
        found = layers_by_need(self._attention, len(self.module.get_submodule(_LAYERS)))
        self._packing: Packing | None = None
        self._probe = AttentionProbe(found, self._config.num_attention_heads, self._read)

    def _attention(self, layer: int) -> Any:
        return compat.tower_attention(self.module, _LAYERS, layer, _ATTENTION)

    def project(self, rows: torch.Tensor) -> torch.Tensor:
        projector = self._projector
        hidden, _ = projector.linear_1(projector.patch_merger.merging_layer(rows))
        projected: torch.Tensor = projector.linear_2(projector.act(hidden))[0]
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
        packing = self._packing = self._pack(images)
        with self._probe.capture(needs) as captured:
            patches = torch.cat(self.module([image.pixels for image in images]))
        # Channels are the outer index and a token's patches the inner one, as in the merger's
        # weights.
        features = packing.by_token(self._projector.norm(patches)).transpose(1, 2).flatten(1)
        columns = {str(need): self._probe.reduce(values) for need, values in captured.items()}
        return {FEATURES: features, **columns}

    def _pack(self, images: Sequence[EncoderImage]) -> Packing:
        device = next(self.module.parameters()).device
        grids = [image.layout.whole_grid or (0, 0) for image in images]
        return Packing.of_rasters(grids, (self._merge, self._merge), device)

    def _read(self, need: Need, layer: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        assert self._packing is not None
        return self._packing.read(need, layer, query, key)
