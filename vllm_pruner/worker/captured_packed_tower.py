"""A `PackedTower` in CUDA graphs, for models that vLLM captures too (Qwen2.5-VL).

vLLM's own model makes the buffers of the tower and runs it; what reads its attention adds two. A
graph is larger than what it runs: its padding is an image of its own behind the others, so that no
image attends to it, and its patches are tokens behind all others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from vllm_pruner.tower import FEATURES, Columns, Pad
from vllm_pruner.worker.model import PrunedModel
from vllm_pruner.worker.packed_tower import PackedTower
from vllm_pruner.worker.packing import Packing

if TYPE_CHECKING:
    from vllm_pruner.methods.base import Need
    from vllm_pruner.tower import EncoderImage

__all__ = ["CapturedPackedTower", "pad_ends"]

_GRAPHS = (64, 128, 192, 256, 384, 512, 640, 768, 1024, 1280, 1536, 1792, 2048, 2560, 3072, 4096)
"""Tokens of the graphs: a third is padded at most from 128 on. Larger images keep the device busy
for longer than their launches take the host. Not yet measured."""

_ENDS, _TOKENS = "vtprune_ends", "vtprune_token_of_patch"


def pad_ends(buffer: torch.Tensor, ends: torch.Tensor) -> None:
    """Write where images end, empty images after them; the last one is the padding's already."""
    count = len(ends)
    buffer[:count].copy_(ends)
    buffer[count:-1].copy_(ends[-1:].expand(len(buffer) - 1 - count))


class CapturedPackedTower(PackedTower):
    """The tower of a Qwen-VL-like model that vLLM can capture; see `CapturedTower`."""

    def __init__(self, model: Any) -> None:
        """Find the layers, and vLLM's own functions.

        Args:
            model: as `PackedTower` takes it, a `CapturedModel` of a class that has
                `SupportsEncoderCudaGraph` by itself.

        Raises:
            RuntimeError: the tower is not built as `compat` knows it.
        """
        super().__init__(model)
        self._stock: Any = super(PrunedModel, model)

    @property
    def padding(self) -> Mapping[str, Pad | None]:
        stock = self._stock.get_encoder_cudagraph_config()
        logics = {key: stock.padding_logics.get(key) for key in stock.buffer_keys}
        return {**logics, _ENDS: pad_ends, _TOKENS: self._pad_tokens}

    def captures(self, image: EncoderImage) -> bool:
        """Return whether it is no video, of which each frame is a sequence."""
        frames, _, _ = self._grid(image)
        return frames == 1

    def graph_rows(self, at_most: int) -> list[int]:
        return [_GRAPHS[0], *(rows for rows in _GRAPHS[1:] if rows <= at_most)]

    def inputs(self, images: Sequence[EncoderImage]) -> dict[str, torch.Tensor]:
        grids = [self._grid(image) for image in images]
        pixels = torch.cat([image.pixels for image in images])
        batch = {"pixel_values": pixels, "image_grid_thw": grids}
        values = self._stock.prepare_encoder_cudagraph_replay_buffers(
            batch, len(grids), len(grids)
        ).values
        packing = self._pack(grids, values)
        tokens = packing.token_of_patch
        if tokens is None:
            tokens = self._in_order(len(pixels), pixels.device)
        return {**values, _ENDS: packing.cu_seqlens, _TOKENS: tokens}

    def blank(
        self, rows: int, images: int, device: torch.device, dtype: torch.dtype
    ) -> dict[str, torch.Tensor]:
        values: dict[str, torch.Tensor] = self._stock.prepare_encoder_cudagraph_capture_inputs(
            rows, images, images, device, dtype
        ).values
        patches = len(values["pixel_values"])
        ends = torch.full((images + 2,), patches, dtype=torch.int32, device=device)
        ends[0] = 0
        return {**values, _ENDS: ends, _TOKENS: self._in_order(patches, device)}

    @torch.no_grad()
    def run(self, inputs: dict[str, torch.Tensor], needs: frozenset[Need]) -> Columns:
        values = dict(inputs)
        ends, tokens = values.pop(_ENDS), values.pop(_TOKENS)
        self._packing = Packing(ends, len(tokens), self.patches_per_row, tokens)
        with self._probe.capture(needs) as captured:
            features = self._stock.encoder_cudagraph_forward(values)
        columns = {str(need): self._probe.reduce(read) for need, read in captured.items()}
        return {FEATURES: features, **columns}

    def _in_order(self, patches: int, device: torch.device) -> torch.Tensor:
        each: int = self.patches_per_row
        return torch.arange(patches, device=device) // each

    def _pad_tokens(self, buffer: torch.Tensor, tokens: torch.Tensor) -> None:
        """Write which token each patch goes to: those of the padding go behind all others, whatever
        the last batch was."""
        buffer.copy_(self._in_order(len(buffer), buffer.device))
        buffer[: len(tokens)].copy_(tokens)
