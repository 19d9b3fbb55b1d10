"""Positions on a canvas: MiniCPM-V 4.7.

All slices of an image form a canvas, over which its whole picture is spread; a token's position has
the canvas's time, and its row and column there. Text behind an image counts from where the canvas
would end unpruned. vLLM derives all of it from the marks in a prompt, the numbers of tokens between
them and the sizes of slices (`get_mrope_input_positions`), which here gets the unpruned prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from vllm.multimodal.inputs import MultiModalKwargsItem

from vllm_pruner.layout.placed_rows import as_placed, placed_in
from vllm_pruner.layout.sliced_grid import SlicedGrid
from vllm_pruner.layout.unpruned_prompt import Run, unpruned
from vllm_pruner.plan import ImagePlan
from vllm_pruner.settings.keys import PLAN_SETTINGS
from vllm_pruner.worker.mrope import MRopeModel
from vllm_pruner.worker.unpruned import counted_grid

if TYPE_CHECKING:
    from vllm.multimodal.inputs import MultiModalFeatureSpec

    from vllm_pruner.worker.batches import Group

__all__ = ["CanvasModel"]

_SIZES = "tgt_sizes"
"""The field with rows and columns of patches of each slice."""


class CanvasModel(MRopeModel):
    """An `MRopeModel` of a MiniCPM-V 4.7; if its checkpoint asks for no canvas, with the plain
    positions that vLLM then gives it."""

    lead: ClassVar[int] = 0
    """The mark before each slice has the canvas's time."""

    starts: tuple[int, ...] = ()
    """The tokens before the whole picture and before each slice; none if there is no canvas."""

    def placed(self, rows: torch.Tensor, index: torch.Tensor, group: Group) -> torch.Tensor:
        layout = group.layout
        assert isinstance(layout, SlicedGrid)
        if not self.starts:
            return torch.stack([as_placed(each, is_image=False) for each in rows])
        within = counted_grid(layout, group.plans[0])
        return placed_in(layout, within, rows, index, layout.shares(rows.shape[1]))

    def get_mrope_input_positions(
        self, input_tokens: list[int], mm_features: list[MultiModalFeatureSpec]
    ) -> tuple[torch.Tensor, int]:
        """Return positions `[3, prompt]`, and the offset from index to position in decoding."""
        if not self.starts:
            return self.stock_positions(input_tokens, mm_features)
        runs: list[Run] = []
        counted = []
        for feature in sorted(mm_features, key=lambda each: each.mm_position.offset):
            counted.append(self._as_counted(feature, input_tokens, runs))
        whole = unpruned(input_tokens, runs)
        positions, delta = self.stock_positions(whole.tokens, counted)
        return positions[:, whole.index], delta + len(whole.tokens) - len(input_tokens)

    def _as_counted(
        self, feature: MultiModalFeatureSpec, tokens: Sequence[int], runs: list[Run]
    ) -> MultiModalFeatureSpec:
        """Return an image or video with the sizes in which positions are counted, and append the
        runs of an image that has a plan."""
        item: dict[str, Any] = {name: field.data for name, field in (feature.data or {}).items()}
        if PLAN_SETTINGS not in item:
            return feature
        assert self.family.item_layout is not None and feature.data is not None
        layout = self.family.item_layout(self.config, item)
        assert isinstance(layout, SlicedGrid)
        within = counted_grid(layout, ImagePlan.of_item(item))
        place = feature.mm_position
        span = range(place.offset, place.offset + place.length)
        offsets = [at + 1 for at in span if tokens[at] in self.starts]
        keeps = layout.shares(place.get_num_embeds())
        for offset, keep, grid in zip(offsets, keeps, within.grids, strict=True):
            runs.append(Run(offset, keep, [self.config.image_token_id] * grid.tokens))
        field = replace(feature.data[_SIZES], data=_resized(item[_SIZES], layout, within))
        return replace(feature, data=MultiModalKwargsItem({**feature.data, _SIZES: field}))


def _resized(sizes: torch.Tensor, layout: SlicedGrid, within: SlicedGrid) -> torch.Tensor:
    """Return the sizes of slices in patches, `[slices, 2]`, as if `layout` were `within`."""
    before, after = (
        torch.tensor([each.whole_grid for each in of.grids]) for of in (layout, within)
    )
    return sizes // before * after
