"""PaddleOCR-VL's tower: SigLIP at a picture's own resolution, with learned positions stretched over
it and rotary ones too, of all pictures in one sequence.

vLLM's class takes whole pictures, patches in raster order, and has the position of each follow from
its index. Here patches are in the order of tokens, so that some tokens can be taken: their
positions are made for the whole picture and taken too. `project` and `features` are the halves of
`Projector.forward`, `_layers` is what `SiglipVisionTransformer` does between. Follows
`paddleocr_vl.py` of vLLM 0.32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from vllm_pruner import compat
from vllm_pruner.worker.merged_tower import Grids, MergedTower
from vllm_pruner.worker.packing import Packing
from vllm_pruner.worker.thinned import in_token_order, patches_of

if TYPE_CHECKING:
    from vllm_pruner.tower import EncoderImage

__all__ = ["MERGE", "PaddleTower"]

MERGE = 2
"""Rows, and columns, of patches in a token; fixed in vLLM's `Projector` too."""


class PaddleTower(MergedTower):
    """The tower of PaddleOCR-VL; see `Tower` and `ThinTower`. Pixels are `[patches, 3 * P * P]`,
    those of a token one after another."""

    layers, attention = "vision_model.encoder.layers", "self_attn.attn"
    norm = "vision_model.post_layernorm"

    def __init__(self, model: Any) -> None:
        """Find the layers.

        Args:
            model: vLLM's model, with a tower `visual` and a projector `mlp_AR`.

        Raises:
            RuntimeError: the tower lacks a module that `compat.tower` relies on.
        """
        super().__init__(model.visual, model.mlp_AR, model.config.vision_config, (MERGE, MERGE))

    def pack(self, grids: Grids) -> Packing:
        sizes = [rows * columns for rows, columns in self.patches(grids)]
        return Packing.of(sizes, self.patches_per_row, None, self.module.device)

    def encoded(self, images: Sequence[EncoderImage], grids: Grids) -> torch.Tensor:
        pixels = torch.cat([image.pixels for image in images])
        lengths = [len(image.pixels) for image in images]
        return self._layers(pixels, *self._positions(grids), lengths)

    def features(self, encoded: torch.Tensor, packing: Packing) -> torch.Tensor:
        return self._of_tokens(packing.by_token(encoded))

    def _of_tokens(self, patches: torch.Tensor) -> torch.Tensor:
        """Return `[tokens, D]`, normalised, of `[tokens, patches of a token, D]`."""
        normalised: torch.Tensor = self._projector.pre_norm(patches)
        return normalised.flatten(1)

    def project(self, rows: torch.Tensor) -> torch.Tensor:
        hidden = self._projector.act(self._projector.linear_1(rows))
        projected: torch.Tensor = self._projector.linear_2(hidden)
        return projected

    @torch.no_grad()
    def encode_some(
        self, images: Sequence[EncoderImage], kept: torch.Tensor, lengths: Sequence[int]
    ) -> torch.Tensor:
        each = self.patches_per_row
        patches = patches_of(kept, each)
        pixels = torch.cat([image.pixels for image in images])[patches]
        learned, rotary = self._positions([self.grids(image)[0] for image in images])
        some = [length * each for length in lengths]
        encoded = self._layers(pixels, learned[patches], rotary[patches], some)
        return self._of_tokens(encoded.unflatten(0, (-1, each)))

    def _positions(self, grids: Grids) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the learned positions of all patches, and the angles of the rotary ones."""
        embeddings, encoder = self.module.vision_model.embeddings, self.module.vision_model.encoder
        width, device = embeddings.position_embedding.weight, self.module.device
        sizes = self.patches(grids)
        table = encoder.rotary_pos_emb(max(map(max, sizes)))
        learned, rotary = [], []
        for rows, columns in sizes:
            stretched = embeddings.interpolate_pos_encoding(width, rows, columns, True)[0]
            learned.append(in_token_order(stretched, rows, columns, MERGE))
            raster = torch.arange(rows * columns, device=device)
            index = in_token_order(raster, rows, columns, MERGE)
            rotary.append(torch.cat([table[index // columns], table[index % columns]], dim=1))
        return torch.cat(learned), torch.cat(rotary)

    def _layers(
        self,
        pixels: torch.Tensor,
        learned: torch.Tensor,
        rotary: torch.Tensor,
        lengths: Sequence[int],
    ) -> torch.Tensor:
        """Return what the tower makes of patches, `[patches, D]`.

        Args:
            pixels: `[patches, 3 * P * P]`.
            learned: `[patches, D]`.
            rotary: `[patches, angles]`.
            lengths: patches of each sequence.
        """
        model, side = self.module.vision_model, self._config.patch_size
        squares = pixels.to(self.module.device, self.module.dtype).view(-1, 3, side, side)
        hidden = (model.embeddings.patch_embedding(squares).flatten(1) + learned).unsqueeze(0)
        told = self._told(rotary, lengths)
        for layer in model.encoder.layers:
            hidden = layer(hidden, **told)
        encoded: torch.Tensor = model.post_layernorm(hidden)[0]
        return encoded

    def _told(self, rotary: torch.Tensor, lengths: Sequence[int]) -> dict[str, Any]:
        """Return what layers get besides patches; see `_layers` for the arguments."""
        told = compat.tower_sequences(self.module.vision_model.encoder, lengths, self.module.device)
        return {
            "cu_seqlens": told.ends,
            "rotary_pos_emb": rotary,
            "max_seqlen": told.longest,
        }
