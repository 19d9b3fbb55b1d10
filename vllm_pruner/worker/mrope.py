"""Models with M-RoPE: kept tokens keep their positions in the image.

vLLM computes a request's positions when it first schedules the request, and has a hook, made for
its video pruning, that corrects them when embeddings are fed. `layout.positions` explains what is
computed and corrected here, and why none of it depends on earlier steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from vllm_pruner import compat
from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.layout.placed_rows import as_placed, placed_in, with_places
from vllm_pruner.layout.positions import fill, split
from vllm_pruner.layout.shares import frame_shares
from vllm_pruner.settings.keys import PLAN_SETTINGS
from vllm_pruner.worker.model import PrunedModel
from vllm_pruner.worker.unpruned import GRIDS, as_unpruned, counted_grid

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.multimodal.inputs import MultiModalFeatureSpec

    from vllm_pruner.worker.batches import Group

__all__ = ["MRopeModel"]


class MRopeModel(PrunedModel):
    """A `PrunedModel` whose family has an `item_layout`.

    Changes besides those of `PrunedModel`:
    - all rows that `embed_multimodal` returns carry digits, which `recompute_mrope_positions`
      splits off: vLLM calls the hook for every request, pruned or not;
    - rows that a client sent in place of text (`--enable-prompt-embeds`) reach that hook without
      digits, and pass it as they are;
    - positions of text are computed on the unpruned prompt;
    - a runner does not replay CUDA graphs of the encoder, which would bypass `embed_multimodal`.
    """

    supports_multimodal_pruning: ClassVar[Literal[True]] = True

    lead: ClassVar[int] = 1
    """See `positions.fill`."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self._plain_width = vllm_config.model_config.get_inputs_embeds_size()
        compat.enable_position_hook_on_cpu()

    def embed_unpruned(self, **kwargs: object) -> Any:
        is_image = GRIDS in kwargs
        return [self.marked(rows, is_image) for rows in super().embed_unpruned(**kwargs) or ()]

    def marked(self, rows: torch.Tensor, is_image: bool) -> torch.Tensor:
        """Return the rows of an image or video without a plan, with digits that say so."""
        return as_placed(rows, is_image or self.family.one_token)

    def placed(self, rows: torch.Tensor, index: torch.Tensor, group: Group) -> torch.Tensor:
        layout = group.layout
        assert isinstance(layout, GridLayout)
        within = counted_grid(layout, group.plans[0])
        if group.between:
            joined = super().placed(rows, index, group)
            return with_places(joined, self._joined(index, group).places(within), is_image=False)
        runs = frame_shares(layout.frames, rows.shape[1]) if layout.apart else ()
        return placed_in(layout, within, rows, index, runs)

    def get_mrope_input_positions(
        self, input_tokens: list[int], mm_features: list[MultiModalFeatureSpec]
    ) -> tuple[torch.Tensor, int]:
        """Return positions `[3, prompt]`, and the offset from index to position in decoding."""
        in_tree = self.is_multimodal_pruning_enabled
        if not in_tree and not any(PLAN_SETTINGS in (each.data or {}) for each in mm_features):
            return self.stock_positions(input_tokens, mm_features)
        whole, features = as_unpruned(self.family, self.config, input_tokens, mm_features, in_tree)
        positions, delta = self.stock_positions(whole.tokens, features)
        return positions[:, whole.index], delta + len(whole.tokens) - len(input_tokens)

    def stock_positions(
        self, tokens: list[int], features: list[MultiModalFeatureSpec]
    ) -> tuple[torch.Tensor, int]:
        """Return the positions of an unpruned prompt, and the offset in decoding."""
        stock: Any = super()
        positions, delta = stock.get_mrope_input_positions(tokens, features)
        return positions, delta

    def recompute_mrope_positions(
        self,
        input_ids: list[int] | torch.Tensor,
        multimodal_embeddings: Sequence[torch.Tensor],
        mrope_positions: torch.Tensor,
        num_computed_tokens: int,
    ) -> tuple[Sequence[torch.Tensor], torch.Tensor, int]:
        """Split the digits off and write the positions of the rows that this step feeds.

        A prompt ends in text, whose positions never change, so the offset in decoding does not
        change either.
        """
        length = mrope_positions.shape[1]
        placed = [each for each in multimodal_embeddings if not self._is_plain(each)]
        if not placed:
            return multimodal_embeddings, mrope_positions, self.delta(mrope_positions, length)
        bare, digits = zip(*map(split, placed), strict=True)
        rest = iter(bare)
        rows = [each if self._is_plain(each) else next(rest) for each in multimodal_embeddings]
        lengths = [len(each) for each in digits]
        parts = torch.cat(digits).cpu().split(lengths)  # one sync, only in steps that feed images
        ids = torch.as_tensor(input_ids).cpu()
        images = _runs(self._is_image(ids))
        videos = None if self.family.one_token else _runs(self._is_video(ids))
        fill(mrope_positions, parts, images, videos, num_computed_tokens, self.lead)
        return rows, mrope_positions, self.delta(mrope_positions, length)

    def _is_plain(self, rows: torch.Tensor) -> bool:
        """Whether rows are a client's, as wide as a text's, without digits."""
        return rows.shape[1] == self._plain_width

    def _is_image(self, ids: torch.Tensor) -> torch.Tensor:
        """Return a mask `[prompt]` of the tokens that are images' placeholders."""
        is_image: torch.Tensor = ids == getattr(self.config, self.family.image_token)
        if self.family.video_marks:
            is_image &= ~self._between_marks(ids)
        return is_image

    def _is_video(self, ids: torch.Tensor) -> torch.Tensor:
        """Return a mask `[prompt]` of the tokens of videos, if this family prunes videos."""
        videos = self.family.videos
        if videos is None:
            return torch.zeros_like(ids, dtype=torch.bool)
        if self.family.video_marks:
            return self._between_marks(ids).logical_and_(ids == self.config.image_token_id)
        is_video: torch.Tensor = ids == getattr(self.config, videos.token)
        return is_video

    def _between_marks(self, ids: torch.Tensor) -> torch.Tensor:
        """Return a mask `[prompt]` of what is between a video's first and last token."""
        start, end = (getattr(self.config, name) for name in self.family.video_marks)
        depth: torch.Tensor = ((ids == start).int() - (ids == end).int()).cumsum(0)
        return depth > 0

    def delta(self, positions: torch.Tensor, length: int) -> int:
        """Return the offset from index to position in decoding, for a prompt of `length`."""
        return int(positions[:, -1].max()) + 1 - length  # max: a prompt may end in a whole image

    def get_encoder_cudagraph_config(self) -> Any:
        stock: Any = super()
        return replace(stock.get_encoder_cudagraph_config(), modalities=[])


def _runs(is_image: torch.Tensor) -> list[tuple[int, int]]:
    """Return start and length of each run of True."""
    edges = torch.diff(torch.nn.functional.pad(is_image.byte(), (1, 1)).to(torch.int8)).nonzero()
    starts_and_ends: list[list[int]] = edges.view(-1, 2).tolist()
    return [(start, end - start) for start, end in starts_and_ends]
