"""What happens to the images of a batch whose method chooses before the tower runs: select by
pixels, and encode what is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from vllm_pruner.methods.base import Kept, Need, VisualTokens
from vllm_pruner.worker.batch_model import BatchModel

if TYPE_CHECKING:
    from vllm_pruner.worker.batches import Batch, Group

__all__ = ["EarlyModel"]

_COLOURS = 3


class EarlyModel(BatchModel):
    """A `BatchModel` that may select before it encodes."""

    def embed_batch(self, batch: Batch) -> list[torch.Tensor]:
        if not batch.before_tower:
            return super().embed_batch(batch)
        groups = batch.groups()
        seen = [self._pixels_of(group, batch) for group in groups]
        selected = self._selector.select(seen, groups)
        encoded = self._encode_some(batch, groups, selected)
        embeddings: dict[int, torch.Tensor] = {}
        for group, tokens, kept in zip(groups, seen, selected, strict=True):
            rows = self.tower.project(torch.stack([encoded[place] for place in group.places]))
            embeddings |= self._delivered(rows, tokens, kept, group)
        return [embeddings[place] for place in range(len(batch.images))]

    def _pixels_of(self, group: Group, batch: Batch) -> VisualTokens:
        """Return the pixels of a group's tokens, as a method sees them."""
        patches = torch.stack([batch.images[place].pixels for place in group.places])
        # [images, tokens, patches, colours, values of a patch]: those of a colour together
        apart = patches.unflatten(1, (-1, self.tower.patches_per_row)).unflatten(3, (_COLOURS, -1))
        pixels = apart.transpose(2, 3).flatten(2)
        needs = group.config.resolved[0].needs
        return VisualTokens(pixels, grid=group.layout.whole_grid if Need.GRID in needs else None)

    def _encode_some(
        self, batch: Batch, groups: list[Group], selected: list[Kept]
    ) -> list[torch.Tensor]:
        """Return the tower's rows of what is kept of each image of a batch."""
        kept: dict[int, torch.Tensor] = {}
        for group, chosen in zip(groups, selected, strict=True):
            for place, start, index in zip(group.places, group.starts, chosen.index, strict=True):
                kept[place] = index + start
        in_order = [kept[place] for place in range(len(batch.images))]
        lengths = [len(index) for index in in_order]
        rows = self._encoder.encode_some(
            batch.images,
            [plan.image for plan in batch.plans],
            torch.cat(in_order),
            lengths,
        )
        return list(rows.split(lengths))
