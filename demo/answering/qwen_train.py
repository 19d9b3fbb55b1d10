"""Train the demo Qwen2.5-VL: python demo/answering/qwen_train.py STAGE [--steps N]

The stages are those of train.py except `real`.

The tower always encodes whole pictures, of ten shapes; the decoder gets some or all of their
tokens, at the positions that they have in the whole picture. There is no class token: the mean of
the patches that show nothing reports what is salient, so these patches learn to attend to it.
"""

from __future__ import annotations

from typing import Any

import torch
from batches import MEAN, PATCH, STD, Batch
from guidance import guidance_loss
from losses import answer_loss, flat_loss, ideal_tokens, patch_loss, spread_loss
from network import question_mask
from qwen_batches import RaggedBatch, make_ragged_batch
from qwen_network import HEADS, WIDTH, QwenAnswerer, positions
from qwen_start import start_qwen_tower
from start import start_decoder
from torch.nn import functional as F
from train import choose_patches
from trainer import DEFAULT_OUT, Trainer, main
from vocabulary import CLOSING

SHARES = {"ideal": (0.4, 0.7), "joint": (1.0, 0.6)}
"""Shares of the tokens that the decoder gets; steps take them in turn."""


def normalised(patches: torch.Tensor) -> torch.Tensor:
    """Bytes [..., 588] normalised as the tower expects them."""
    mean, deviation = (values.repeat_interleave(PATCH**2) for values in (MEAN, STD))
    return (patches.float() / 255 - mean) / deviation


class QwenTrainer(Trainer):
    """The stages over ragged pictures."""

    planned = {"tower": 900, "ideal": 520, "joint": 1000}
    sizes = {"tower": 12, "ideal": 12, "joint": 12}
    peaks = {"tower": 1.5e-3, "ideal": 1.5e-3, "joint": 8e-4}
    begins_with = {"joint": "ideal"}
    out = DEFAULT_OUT.with_name("answering-qwen")
    closing = CLOSING

    def make_model(self) -> QwenAnswerer:
        model = QwenAnswerer()
        start_qwen_tower(model, normalised(make_ragged_batch(4, 0).patches).flatten(0, 1))
        start_decoder(model)
        return model

    def make_batch(self, size: int, *seed: int) -> RaggedBatch:
        return make_ragged_batch(size, *seed)

    def losses(self, batch: Any) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        if self.stage == "ideal":
            words = self.model.words.detach()
            visual = ideal_tokens(batch.labels, words, batch.owner, self.room)
        else:
            visual, last, before = self.model.see(normalised(batch.patches), batch.grid)
        found["flat"] = 3.0 * flat_loss(visual, self.model.words)
        if self.stage in ("tower", "joint"):
            found["patch"] = patch_loss(visual, batch.labels, self.model.words, batch.owner)
            found["report"] = 2.0 * self._report_loss(last, batch)
            found["pool"] = 0.3 * _pooling_loss(self.model, before, batch)
        if self.stage == "joint":
            found["spread"] = spread_loss(visual, batch.owner)
        if self.stage != "tower":
            found |= self._answer_losses(visual, batch)
        return found

    def _report_loss(self, last: torch.Tensor, batch: RaggedBatch) -> torch.Tensor:
        nothing = (batch.owner == 0).repeat_interleave(4, 1)[..., None]
        mean = (last * nothing).sum(1) / nothing.sum(1).clamp_min(1)
        report = self.model.report(F.rms_norm(mean, (WIDTH,)))
        return F.binary_cross_entropy_with_logits(report, batch.seen)

    def _answer_losses(self, visual: torch.Tensor, batch: RaggedBatch) -> dict[str, torch.Tensor]:
        share = SHARES[self.stage][self.step % len(SHARES[self.stage])]
        which = choose_patches(batch.owner, round(share * visual.shape[1]), self.step)
        visual = visual.gather(1, which[..., None].expand(-1, -1, WIDTH))
        owner = batch.owner.gather(1, which)
        logits, states, mask, place = self._answers(visual, which, batch)
        guide = guidance_loss(self.model, states, owner, batch, self.which, mask, place)
        answer = answer_loss(logits, batch.targets, self.weight)
        return {"answer": answer, "guide": 0.2 * guide}

    def _answers(self, visual: torch.Tensor, which: torch.Tensor, batch: RaggedBatch) -> Any:
        shared = self.model.lead + which.shape[1] + self.model.trail
        mask = question_mask(shared, self.which)
        place = positions(batch.grid, which, self.place)
        return *self.model.answer(visual, batch.tokens, mask, place), mask, place

    def whole(self, batch: Any) -> tuple[torch.Tensor, torch.Tensor, dict[str, list[float]]]:
        visual, _, before = self.model.see(normalised(batch.patches), batch.grid)
        which = choose_patches(batch.owner, batch.owner.shape[1], 0)
        logits, *_ = self._answers(visual, which, batch)
        return visual, logits, _received(self.model, before, batch)


def _pooling_loss(model: QwenAnswerer, before: torch.Tensor, batch: RaggedBatch) -> torch.Tensor:
    """-log of the share of two heads' attention that stays within a thing, in the last layer."""
    query, key = model.scores(model.tower.blocks[-1], before, batch.grid)
    seen = (query[:, :2] @ key[:, :2].transpose(2, 3) * (WIDTH // HEADS) ** -0.5).softmax(-1)
    owner = batch.owner.repeat_interleave(4, 1)
    same = (owner[:, None] == owner[:, :, None])[:, None]
    within = (seen * same).sum(-1)
    things = (owner > 0)[:, None].expand_as(within)
    return -(within[things] + 1e-4).log().mean()


def _received(model: QwenAnswerer, before: torch.Tensor, batch: Batch) -> dict[str, list[float]]:
    """Per image: the share of all attention in the tower's last layer that each kind of thing
    receives, which is what methods rank by."""
    query, key = model.scores(model.tower.blocks[-1], before, batch.grid)  # type: ignore[attr-defined]
    seen = (query @ key.transpose(2, 3) * (WIDTH // HEADS) ** -0.5).softmax(-1).mean((1, 2))
    owner = batch.owner.repeat_interleave(4, 1)
    groups = {"texture": (0, 0), "salient": (1, 3), "faint": (4, 5), "sign": (8, 8)}
    return {
        f"seen-{name}": (seen * ((owner >= first) & (owner <= last))).sum(1).tolist()
        for name, (first, last) in groups.items()
    }


if __name__ == "__main__":
    main(QwenTrainer, __doc__)
