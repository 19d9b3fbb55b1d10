"""Models with rotary positions of several dimensions: kept tokens stay where they are in the image.

vLLM counts positions when it takes a request up, and has a hook that corrects them as embeddings
are fed (made for its video pruning). `layout.positions` says what is counted and corrected here,
and why nothing of it depends on what was computed before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from vllm.multimodal.inputs import MultiModalKwargsItem, PlaceholderRange

from vllm_pruner import compat
from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.layout.positions import as_placed, fill, split, unpruned, with_places
from vllm_pruner.plan import ImagePlan
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.keys import PLAN_SETTINGS
from vllm_pruner.worker.model import PrunedModel

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.multimodal.inputs import MultiModalFeatureSpec

    from vllm_pruner.worker.batches import Group

__all__ = ["MRopeModel"]

_IMAGE = "image"
_GRIDS = f"{_IMAGE}_grid_thw"
"""The field that every model of this kind has of an image."""


class MRopeModel(PrunedModel):
    """A `PrunedModel` whose family has an `item_layout`.

    Changes beside those of `PrunedModel`:
    - all that `embed_multimodal` returns carries digits, which `recompute_mrope_positions` takes
      off: the hook does so for every request, pruned or not;
    - positions of text are counted on the unpruned prompt;
    - the encoder is not captured in CUDA graphs, which would go past `embed_multimodal`.
    """

    supports_multimodal_pruning: ClassVar[Literal[True]] = True

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        compat.enable_position_hook_on_cpu()
        # The hook is on because `compat` says so; the model's own video pruning stays off.
        self.is_multimodal_pruning_enabled = False

    def embed_multimodal(self, **kwargs: object) -> Any:
        if PLAN_SETTINGS in kwargs:
            return super().embed_multimodal(**kwargs)
        is_image = _GRIDS in kwargs
        return [as_placed(rows, is_image) for rows in super().embed_multimodal(**kwargs) or ()]

    def placed(self, rows: torch.Tensor, index: torch.Tensor, group: Group) -> torch.Tensor:
        layout = group.layout
        assert isinstance(layout, GridLayout)
        within = _counted(layout, group.config)
        return with_places(rows, layout.places_at(index, within))

    def get_mrope_input_positions(
        self, input_tokens: list[int], mm_features: list[MultiModalFeatureSpec]
    ) -> tuple[torch.Tensor, int]:
        """Return positions `[3, prompt]`, and what decoding adds to a token's place."""
        stock: Any = super()
        if not any(PLAN_SETTINGS in (feature.data or {}) for feature in mm_features):
            positions, delta = stock.get_mrope_input_positions(input_tokens, mm_features)
            return positions, delta
        in_order = sorted(mm_features, key=lambda feature: feature.mm_position.offset)
        counted = [self._as_counted(feature) for feature in in_order]
        media = [
            (feature.mm_position.offset, feature.mm_position.length, length)
            for feature, length in counted
        ]
        whole = unpruned(input_tokens, media)
        features = [
            replace(feature, mm_position=_moved(feature.mm_position, offset, length))
            for (feature, length), offset in zip(counted, whole.offsets, strict=True)
        ]
        positions, delta = stock.get_mrope_input_positions(whole.tokens, features)
        return positions[:, whole.index], delta + len(whole.tokens) - len(input_tokens)

    def _as_counted(self, feature: MultiModalFeatureSpec) -> tuple[MultiModalFeatureSpec, int]:
        """Return an image or video with the grid that its positions are counted in, and how many
        placeholders that has: all of an unpruned picture, unless `positions` is `compact`."""
        if feature.data is None or PLAN_SETTINGS not in feature.data:
            return feature, feature.mm_position.length
        item: dict[str, Any] = {name: field.data for name, field in feature.data.items()}
        assert self.family.item_layout is not None
        layout = self.family.item_layout(self.config, item)
        assert isinstance(layout, GridLayout)
        counted = _counted(layout, ImagePlan.config_of(item))
        if counted == layout:
            return feature, layout.tokens
        thw = item[_GRIDS].clone()
        thw[..., 1] = thw[..., 1] // layout.rows * counted.rows
        thw[..., 2] = thw[..., 2] // layout.columns * counted.columns
        field = replace(feature.data[_GRIDS], data=thw)
        data = MultiModalKwargsItem({**feature.data, _GRIDS: field})
        return replace(feature, data=data), counted.tokens

    def recompute_mrope_positions(
        self,
        input_ids: list[int] | torch.Tensor,
        multimodal_embeddings: Sequence[torch.Tensor],
        mrope_positions: torch.Tensor,
        num_computed_tokens: int,
    ) -> tuple[Sequence[torch.Tensor], torch.Tensor, int]:
        """Take the digits off and write the positions of the rows that this step feeds.

        A prompt ends in text, whose positions never change, so neither does what decoding adds.
        """
        length = mrope_positions.shape[1]
        if not multimodal_embeddings:
            return multimodal_embeddings, mrope_positions, self._delta(mrope_positions, length)
        rows, digits = zip(*map(split, multimodal_embeddings), strict=True)
        lengths = [len(each) for each in digits]
        parts = torch.cat(digits).cpu().split(lengths)  # one wait, and only where images are fed
        runs = _runs(self._is_image(torch.as_tensor(input_ids)))
        fill(mrope_positions, parts, runs, num_computed_tokens)
        return rows, mrope_positions, self._delta(mrope_positions, length)

    def _is_image(self, ids: torch.Tensor) -> torch.Tensor:
        """Return which tokens of a prompt are of images: `[prompt]` bool."""
        is_image: torch.Tensor = ids == self.config.image_token_id
        if not self.family.video_marks:
            return is_image
        start, end = (getattr(self.config, name) for name in self.family.video_marks)
        depth = ((ids == start).int() - (ids == end).int()).cumsum(0)
        return is_image.logical_and_(depth <= 0)

    @staticmethod
    def _delta(positions: torch.Tensor, length: int) -> int:
        return int(positions[:, -1].max()) + 1 - length  # of an image, if it is kept whole

    def get_encoder_cudagraph_config(self) -> Any:
        stock: Any = super()
        return replace(stock.get_encoder_cudagraph_config(), modalities=[])


def _counted(layout: GridLayout, config: PruneConfig) -> GridLayout:
    """Return the grid that an image's positions are counted in."""
    if config.off or config.positions == "original":
        return layout
    return layout.compact(config.keep_count(layout.tokens))


def _moved(place: PlaceholderRange, offset: int, length: int) -> PlaceholderRange:
    """Return where an image or video is in the unpruned prompt; what is whole keeps its mask."""
    if length == place.length:
        return replace(place, offset=offset)
    return PlaceholderRange(offset=offset, length=length)


def _runs(is_image: torch.Tensor) -> list[tuple[int, int]]:
    """Return start and length of each run."""
    edges = torch.diff(torch.nn.functional.pad(is_image.byte(), (1, 1)).to(torch.int8)).nonzero()
    starts_and_ends: list[list[int]] = edges.view(-1, 2).tolist()
    return [(start, end - start) for start, end in starts_and_ends]
