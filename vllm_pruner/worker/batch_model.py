"""What happens to the images of one batch: encode, select, and project what is kept."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.functional import pad
from vtprune_kernels import gather_rows

from vllm_pruner import compat
from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.layout.joined_frames import JoinedFrames
from vllm_pruner.layout.raster import arrange, is_mixed
from vllm_pruner.methods.base import CAPTURED, Kept, Need, VisualTokens
from vllm_pruner.methods.on_device import on_device
from vllm_pruner.methods.texts import Texts
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.tower import FEATURES, Columns, Tower
from vllm_pruner.worker.shrink import middles

if TYPE_CHECKING:
    from vllm.config import VllmConfig

    from vllm_pruner.layout.layout import Layout
    from vllm_pruner.worker.batches import Batch, Group
    from vllm_pruner.worker.coverage import Coverage
    from vllm_pruner.worker.encoder import Encoder
    from vllm_pruner.worker.explain import Observer
    from vllm_pruner.worker.guard import Guard
    from vllm_pruner.worker.selection import Selector

    class _Model(nn.Module):
        """What the mixins expect of the class after them."""

        config: Any
        language_model: Any
        image_newline: Any

        def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None: ...
        def _parse_and_validate_image_input(self, **kwargs: object) -> Any: ...
        def _parse_and_validate_video_input(self, **kwargs: object) -> Any: ...
        def embed_multimodal(self, **kwargs: object) -> Any: ...
        def load_weights(self, weights: Any) -> set[str]: ...

else:
    _Model = object

__all__ = ["BatchModel"]


class BatchModel(_Model):
    """Mixin that embeds batches; `PrunedModel` sets its parts up and makes the batches."""

    tower: Tower
    guard: Guard
    coverage: Coverage
    _encoder: Encoder
    _selector: Selector

    on_selection: Observer | None = None
    """Called after every selection."""

    @property
    def decoder(self) -> Any:
        """The language model, which also embeds the tokens of a prompt."""
        return self.language_model

    @cached_property
    def embed_plain(self) -> compat.PlainEmbedding:
        """The decoder's input embeddings, for tokens that are not the step's; found at the first
        use, when adapters are in place."""
        return compat.PlainEmbedding(self.decoder)

    def embed_batch(self, batch: Batch) -> list[torch.Tensor]:
        """Return the decoder's rows for each image of a batch: `[keep, width of the decoder]`."""
        encoded, groups = self._encode(batch), batch.groups()
        tokens = [self._tokens_of(group, encoded) for group in groups]
        leading = self._leading(encoded, groups)
        seen = [
            self._seen_by_method(whole, group, leading)
            for whole, group in zip(tokens, groups, strict=True)
        ]
        selected = self._selector.select(seen, groups)
        embeddings: dict[int, torch.Tensor] = {}
        for group, whole, compared, kept in zip(groups, tokens, seen, selected, strict=True):
            rows = self._project(whole, kept, group.layout)
            embeddings |= self._delivered(rows, compared, kept, group)
        return [embeddings[place] for place in range(len(batch.images))]

    def _delivered(
        self, rows: torch.Tensor, tokens: VisualTokens, kept: Kept, group: Group
    ) -> dict[int, torch.Tensor]:
        """Return what goes to the decoder for a group, by the image's place in its batch, and tell
        whoever watches what was chosen.

        Args:
            rows: `[images, keep, width of the decoder]`, the kept tokens projected.
            tokens: the group's tokens as its method saw them.
            kept: what the method kept.
            group: the group.
        """
        self._notify(tokens, kept, group)
        self.coverage.note(tokens, kept, group)
        if group.foreign:
            rows = self.guard.finite(rows, group.plans)
        return dict(zip(group.places, self.placed(rows, kept.index, group), strict=True))

    def placed(self, rows: torch.Tensor, index: torch.Tensor, group: Group) -> torch.Tensor:
        """Return the rows `[images, keep, width]` with what goes to the decoder in addition; here
        the tokens between joined frames, since a token's place in the sequence is its position."""
        if not group.between:
            return rows
        joined = self._joined(index, group)
        others = self.embed_plain(joined.tokens)
        others = pad(others, (0, rows.shape[2] - others.shape[1]))  # no levels of DeepStack
        others = others.expand(len(rows), -1, -1)
        return gather_rows([torch.cat([rows, others], dim=1)], joined.order())[0]

    def _joined(self, index: torch.Tensor, group: Group) -> JoinedFrames:
        """Return the runs of a group whose frames are joined."""
        assert isinstance(group.layout, GridLayout)
        return JoinedFrames.of(group.layout, index, group.between)

    def _encode(self, batch: Batch) -> Columns:
        """Run the tower for what the methods of a batch need."""
        needs = frozenset(need for plan in batch.plans for need in self._needs(plan.config))
        if batch.small_grid is not None:
            return self._encoder.encode_small(batch.images, needs, batch.small_grid)
        return self._encoder.encode(batch.images, [plan.image for plan in batch.plans], needs)

    def _leading(self, encoded: Columns, groups: list[Group]) -> torch.Tensor | None:
        """Return the features `[rows, D]` of a batch without DeepStack's of earlier layers, from
        one copy; None if there are none of these, or nobody compares features."""
        width = self.tower.own_width
        if width is None or all(group.config.off for group in groups):
            return None
        return encoded[FEATURES][:, :width].contiguous()

    def _seen_by_method(
        self, tokens: VisualTokens, group: Group, leading: torch.Tensor | None
    ) -> VisualTokens:
        """Return the tokens as a method sees them: with the features in `leading`, unless the
        method merges, and so must merge those of earlier layers too."""
        if leading is None or group.config.off:
            return tokens
        features, projected = tokens.features, tokens.projected
        if projected is not None:
            projected = projected[..., : leading.shape[1]].contiguous()
        if not group.config.resolved[0].merges:
            features = arrange({FEATURES: group.of(leading)}, group.layout)[FEATURES]
        return replace(tokens, features=features, projected=projected)

    def _needs(self, config: PruneConfig) -> frozenset[Need]:
        """Return what a method and the observer need; an unpruned image has no method."""
        needs = frozenset[Need]() if config.off else config.needs
        return needs if self.on_selection is None else needs | {config.importance_need}

    def _tokens_of(self, group: Group, encoded: Columns) -> VisualTokens:
        """Return the visual tokens of a group in the decoder's order."""
        needs = self._needs(group.config)
        names = (FEATURES, *(needs & CAPTURED))
        arranged: dict[str, Any] = arrange(
            {name: group.of(encoded[name]) for name in names}, group.layout
        )
        if Need.MERGER_NORM in arranged:
            arranged[Need.IMPORTANCE] = arranged.pop(Need.MERGER_NORM)
        grid = group.layout.whole_grid if Need.GRID in needs else None
        tokens = VisualTokens(**arranged, grid=grid)
        mixed = is_mixed(group.layout)
        if not (group.config.off or mixed or needs & {Need.PROJECTED, Need.TEXT}):
            return tokens
        # All tokens are projected if the method compares them in the decoder's space, or if all are
        # kept; `_project` then does not project them again.
        text = self._embed_texts(group.texts) if Need.TEXT in needs else None
        projected = self.tower.project(group.of(encoded[FEATURES]) if mixed else tokens.features)
        if mixed:
            projected = arrange({FEATURES: projected}, group.layout)[FEATURES]
        return replace(tokens, projected=projected, text=text)

    def _embed_texts(self, texts: list[tuple[int, ...]]) -> Texts:
        """Return the decoder's input embeddings of each text, from one lookup."""
        ids = on_device([token for text in texts for token in text], self._encoder.device)
        return Texts.cut(self.embed_plain(ids), [len(text) for text in texts])

    def _project(self, tokens: VisualTokens, kept: Kept, layout: Layout) -> torch.Tensor:
        """Return the kept rows `[images, keep, width]` in the decoder's space, with newlines
        between them."""
        if kept.rows is not None:
            return self.tower.project(kept.rows)
        has_newlines = layout.height > 0
        patches, newline = layout.patches_at(kept.index) if has_newlines else (kept.index, None)
        if tokens.projected is None:
            rows = self.tower.project(gather_rows([tokens.features], patches)[0])
        else:
            rows = gather_rows([tokens.projected], patches)[0]
        return rows if newline is None else self.image_newline.where(newline.unsqueeze(2), rows)

    def _notify(self, tokens: VisualTokens, kept: Kept, group: Group) -> None:
        """Pass a selection to the observer, if there is one."""
        if self.on_selection is None:
            return
        index, full_grid = kept.index, group.layout.whole_grid
        if tokens.features.shape[1] < group.layout.patches:  # of a shrunk image
            small_grid = group.small_grid
            assert full_grid is not None and small_grid is not None
            index = middles(small_grid, full_grid, index.device).expand_as(index)
            tokens = replace(tokens, importance=None)
        self.on_selection(tokens, index, group.layout)
