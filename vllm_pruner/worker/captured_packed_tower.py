"""Packed towers in CUDA graphs, of models that vLLM captures too: Qwen-VL and GLM-V, ERNIE-4.5-VL.

vLLM's own model creates the tower's buffers and runs it. Reading the attention needs one more
buffer, the ends of the images, and a second one if the tower sorts patches by window. A graph is
larger than its batch: the padding is one more image after the others, so that no image attends to
it, and its patches belong to tokens after all others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from vllm_pruner.tower import FEATURES, Columns, Pad
from vllm_pruner.worker.model import PrunedModel
from vllm_pruner.worker.packed_tower import ORDER, PackedTower
from vllm_pruner.worker.packing import Packing

if TYPE_CHECKING:
    from vllm_pruner.methods.base import Need
    from vllm_pruner.tower import EncoderImage
    from vllm_pruner.worker.probe import AttentionProbe

    class _Tower:
        """What the mixin expects of the class after it."""

        patches_per_row: int
        _packing: Packing
        _probe: AttentionProbe

        def __init__(self, model: Any) -> None: ...
        def _grid(self, image: EncoderImage) -> list[int]: ...
        def _pack(self, grids: list[list[int]], metadata: dict[str, Any]) -> Packing: ...

else:
    _Tower = object

__all__ = ["CapturedPackedTower", "CapturedPacking", "pad_ends"]

_GRAPHS = (64, 128, 192, 256, 384, 512, 640, 768, 1024, 1280, 1536, 1792, 2048, 2560, 3072, 4096)
"""Tokens of the graphs. From 128 on, at most a third of a graph is padding. Larger images keep the
device busy for longer than the host needs to launch their kernels. Not yet measured."""

_ENDS, _TOKENS = "vtprune_ends", "vtprune_token_of_patch"
_PIXELS = "pixel_values"


def pad_ends(buffer: torch.Tensor, ends: torch.Tensor) -> None:
    """Write the ends of a batch's images, then empty images; the last end is the padding's and
    stays."""
    count = len(ends)
    buffer[:count].copy_(ends)
    buffer[count:-1].copy_(ends[-1:].expand(len(buffer) - 1 - count))


class CapturedPacking(_Tower):
    """Mixin for a tower of images packed into one sequence; see `CapturedTower`."""

    def __init__(self, model: Any) -> None:
        """Find the layers, and vLLM's own functions.

        Args:
            model: as for the tower; a `CapturedModel` whose vLLM class implements
                `SupportsEncoderCudaGraph` itself.

        Raises:
            RuntimeError: the tower lacks a module that `compat.tower` relies on.
        """
        super().__init__(model)
        self._stock: Any = super(PrunedModel, model)

    @property
    def padding(self) -> Mapping[str, Pad | None]:
        stock = self._stock.get_encoder_cudagraph_config()
        logics = {key: stock.padding_logics.get(key) for key in stock.buffer_keys}
        return {**logics, _ENDS: pad_ends, _TOKENS: self._pad_tokens}

    def captures(self, image: EncoderImage) -> bool:
        """Return False for a video, whose frames are sequences of their own."""
        frames, _, _ = self._grid(image)
        return frames == 1

    def graph_rows(self, at_most: int) -> list[int]:
        return [_GRAPHS[0], *(rows for rows in _GRAPHS[1:] if rows <= at_most)]

    def inputs(
        self, images: Sequence[EncoderImage], room: int | None = None
    ) -> dict[str, torch.Tensor]:
        grids = [self._grid(image) for image in images]
        pixels = torch.cat([image.pixels for image in images])
        batch = {_PIXELS: pixels, "image_grid_thw": self.as_field(grids)}
        room = room or len(grids)
        values = self._stock.prepare_encoder_cudagraph_replay_buffers(batch, room, room).values
        packing = self._pack(grids, values)
        order = {} if packing.token_of_patch is None else {_TOKENS: packing.token_of_patch}
        return {**values, _ENDS: packing.cu_seqlens, **order}

    def blank(
        self, rows: int, images: int, device: torch.device, dtype: torch.dtype
    ) -> dict[str, torch.Tensor]:
        # vLLM's models divide the rows among the images; GLM-V's rounds down.
        whole = -(-rows // images) * images
        values: dict[str, torch.Tensor] = self._stock.prepare_encoder_cudagraph_capture_inputs(
            whole, images, images, device, dtype
        ).values
        patches = len(values[_PIXELS])
        ends = torch.full((images + 2,), patches, dtype=torch.int32, device=device)
        ends[0] = 0
        order = {_TOKENS: self._in_order(patches, device)} if ORDER in values else {}
        return {**values, _ENDS: ends, **order}

    @torch.no_grad()
    def run(self, inputs: dict[str, torch.Tensor], needs: frozenset[Need]) -> Columns:
        values = dict(inputs)
        ends, tokens = values.pop(_ENDS), values.pop(_TOKENS, None)
        self._packing = Packing(ends, len(values[_PIXELS]), self.patches_per_row, tokens)
        with self._probe.capture(needs) as captured:
            features = self.rows_of(self._stock.encoder_cudagraph_forward(values))
        return {FEATURES: features, **self._probe.columns(captured)}

    def as_field(self, grids: list[list[int]]) -> Any:
        """Return the grids of images as vLLM's class reads them."""
        return grids

    def rows_of(self, returned: torch.Tensor) -> torch.Tensor:
        """Return the rows of tokens in what a graph of vLLM's returns."""
        return returned

    def _in_order(self, patches: int, device: torch.device) -> torch.Tensor:
        each: int = self.patches_per_row
        return torch.arange(patches, device=device) // each

    def _pad_tokens(self, buffer: torch.Tensor, tokens: torch.Tensor) -> None:
        """Write the token of each patch. The padding's tokens come after all others, whatever the
        last batch left in the buffer."""
        buffer.copy_(self._in_order(len(buffer), buffer.device))
        buffer[: len(tokens)].copy_(tokens)


class CapturedPackedTower(CapturedPacking, PackedTower):
    """The tower of a Qwen-VL-like model that vLLM can capture; see `CapturedPacking`."""
