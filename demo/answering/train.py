"""Train the demo model that answers, in stages: python demo/answering/train.py STAGE [--steps N]

tower  the vision tower learns to map each patch to the decoder's words for what it shows
ideal  the decoder learns to answer, from synthetic visual tokens of a tower without mistakes
real   the decoder, on tokens of the tower's latest checkpoint (may run while tower still trains)
joint  all of it, on whole images, with a loss that keeps texture tokens apart
"""

from __future__ import annotations

from typing import Any

import torch
from batches import Batch, make_batch, take
from guidance import guidance_loss, pooling_loss
from losses import answer_loss, flat_loss, ideal_tokens, patch_loss, spread_loss
from mechanism import mechanism
from network import Answerer, positions, question_mask
from start import start_decoder, start_tower
from trainer import Trainer, main

PATCHES = {"tower": (128,), "ideal": (48,), "real": (96, 64, 256, 128), "joint": (256, 128)}
"""Patches of an image that a step encodes; a stage's steps take these numbers in turn."""


def choose_patches(owner: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """`count` patches per image, ascending [B, count]: at random, but those that show something are
    preferred, tiles less so."""
    if count == owner.shape[1]:
        return torch.arange(count).expand(len(owner), -1)
    lot = torch.rand(owner.shape, generator=torch.Generator().manual_seed(seed))
    chance = lot + 0.8 * (owner > 0) - 0.4 * (owner == 7)
    return chance.topk(count, dim=1).indices.sort(dim=1).values


class SceneTrainer(Trainer):
    """The stages over scenes of one size."""

    planned = {"tower": 2100, "ideal": 900, "real": 300, "joint": 400}
    sizes = {"tower": 24, "ideal": 12, "real": 12, "joint": 12}
    peaks = {"tower": 1.5e-3, "ideal": 1.5e-3, "real": 1.5e-3, "joint": 4e-4}
    begins_with = {"real": "ideal", "joint": "real"}

    def make_model(self) -> Any:
        model = Answerer()
        start_tower(model)
        start_decoder(model)
        return model

    def make_batch(self, size: int, *seed: int) -> Any:
        return make_batch(size, *seed)

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        counts = PATCHES[self.stage]
        which = choose_patches(batch.owner, counts[self.step % len(counts)], self.step)
        owner = batch.owner.gather(1, which)
        labels = {group: label.gather(1, which) for group, label in batch.labels.items()}
        found: dict[str, torch.Tensor] = {}
        if self.stage == "ideal":
            visual = ideal_tokens(labels, self.model.words.detach(), owner, self.room)
        else:
            with torch.set_grad_enabled(self.stage != "real"):
                seen = self.model.see(take(batch.patches, which), which)
            visual, report, before = seen
        found["flat"] = 3.0 * flat_loss(visual, self.model.words)
        if self.stage in ("tower", "joint"):
            found["patch"] = patch_loss(visual, labels, self.model.words, owner)
            report = torch.nn.functional.binary_cross_entropy_with_logits(report, batch.seen)
            found["report"] = 2.0 * report
            found["pool"] = 0.3 * pooling_loss(self.model, before, owner)
        if self.stage == "joint":
            found["spread"] = spread_loss(visual, owner)
        if self.stage != "tower":
            mask = question_mask(2 + which.shape[1], self.which)
            place = positions(which.shape[1], self.place)
            logits, states = self.model.answer(visual, batch.tokens, mask, place)
            found["answer"] = answer_loss(logits, batch.targets, self.weight)
            guide = guidance_loss(self.model, states, owner, batch, self.which, mask, place)
            found["guide"] = 0.2 * guide
        return found

    def whole(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, dict[str, list[float]]]:
        which = choose_patches(batch.owner, batch.owner.shape[1], 0)
        visual, _, before = self.model.see(take(batch.patches, which), which)
        mask = question_mask(2 + which.shape[1], self.which)
        place = positions(which.shape[1], self.place)
        logits, _ = self.model.answer(visual, batch.tokens, mask, place)
        return visual, logits, mechanism(self.model, visual, before, batch.owner)


if __name__ == "__main__":
    main(SceneTrainer, __doc__)
