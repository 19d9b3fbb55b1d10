"""Train the demo model that answers: python models/answering/train.py [--stages A B C] [--out DIR]

Three stages. The tower first learns alone to say in the decoder's own words what every patch shows;
then the decoder joins, on the patches that matter and some that do not; then all see the whole
image. Batch n is drawn from (seed, n), so a run that is stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from batches import IGNORE, LABEL_WORDS, WORD_IDS, Batch, layout, make_batch, take
from guidance import pooling_loss
from network import Answerer, positions, question_mask
from start import start_decoder, start_tower
from torch.nn import functional as F
from tqdm import tqdm
from vocabulary import EOS

HERE = Path(__file__).resolve().parent
DEFAULT_OUT = HERE.parents[1] / ".cache" / "training" / "answering"
PEAK, WARMUP, FALL = 1.5e-3, 50, 0.35
"""AdamW's learning rate: peak, steps up to it, and the share of all steps that it falls for."""
STAGES = (1400, 2000, 2200)
"""Steps at which the stages end."""
PATCHES = 96
"""Patches that the first two stages look at."""
GROUP_WEIGHT = {"color": 1.0, "shape": 1.0, "size": 0.5, "letter": 1.0, "row": 0.1, "column": 0.1}
SHARPNESS = 20.0
HELD_OUT = 2
"""First word of the seeds of the held-out scenes; training uses 1."""


def choose_patches(owner: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """`count` patches an image, ascending: what shows something first, the rest by lot."""
    if count == owner.shape[1]:
        return torch.arange(count).expand(len(owner), -1)
    lot = torch.rand(owner.shape, generator=torch.Generator().manual_seed(seed))
    chance = lot + 0.8 * (owner > 0) - 0.4 * (owner == 7)
    return chance.topk(count, dim=1).indices.sort(dim=1).values


def patch_loss(
    visual: torch.Tensor, labels: dict[str, torch.Tensor], words: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy over cosines with the words of each group; texture counts a third."""
    tokens, unit = F.normalize(visual, dim=-1), F.normalize(words, dim=-1)
    loss = visual.new_zeros(())
    for group, weight in GROUP_WEIGHT.items():
        scores = SHARPNESS * tokens @ unit[WORD_IDS[group]].T
        share = torch.ones(len(LABEL_WORDS[group]))
        if group in ("color", "shape", "size", "letter"):
            share[-1] = 0.3
        loss = loss + weight * F.cross_entropy(scores.flatten(0, 1), labels[group].flatten(), share)
    return loss


def answer_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the answers; where they end is easy and counts little."""
    each = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    share = torch.where(targets == EOS, 0.05, 1.0) * (targets != IGNORE)
    return (each * share.flatten()).sum() / share.sum()


class Trainer:
    """The model, its optimiser and the step it is at."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.step = arguments, 0
        torch.manual_seed(arguments.seed)
        self.model = Answerer()
        start_tower(self.model)
        start_decoder(self.model)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=PEAK, betas=(0.9, 0.98), weight_decay=0.02
        )
        self.which, self.place, self.plan = layout()

    def load(self) -> None:
        file = self.arguments.out / "last.pt"
        if file.exists():
            state = torch.load(file, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = state["step"]

    def save(self) -> None:
        """Written beside, then moved: a file that exists is whole."""
        file = self.arguments.out / "last.pt"
        file.parent.mkdir(parents=True, exist_ok=True)
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save({**state, "step": self.step}, file.with_suffix(".part"))
        os.replace(file.with_suffix(".part"), file)

    def learning_rate(self) -> float:
        """Up, level, and down in a straight line: where it falls can be moved by a resumed run."""
        end = self.arguments.stages[-1]
        left = (end - self.step) / (FALL * end)
        return PEAK * min(1, (self.step + 1) / WARMUP, max(left, 0.02))

    def train_step(self, batch: Batch) -> dict[str, float]:
        alone, whole = (self.step < self.arguments.stages[0], self.step >= self.arguments.stages[1])
        count = batch.owner.shape[1] if whole else PATCHES
        which = choose_patches(batch.owner, count, self.step)
        self.model.words.requires_grad_(not alone)
        visual, report, before = self.model.see(take(batch.patches, which), which)
        labels = {group: label.gather(1, which) for group, label in batch.labels.items()}
        losses = {"patch": patch_loss(visual, labels, self.model.words)}
        losses["report"] = F.binary_cross_entropy_with_logits(report, batch.seen)
        owner = batch.owner.gather(1, which)
        losses["pool"] = pooling_loss(self.model, before, owner)
        total = (1.0 if alone else 0.5) * losses["patch"] + 0.3 * (
            losses["report"] + losses["pool"]
        )
        if not alone:
            mask, place = question_mask(count, self.which), positions(count, self.place)
            logits = self.model.answer(visual, batch.tokens, mask, place)
            losses["answer"] = answer_loss(logits, batch.targets)
            total = total + losses["answer"]
        self.update(total)
        return {name: loss.item() for name, loss in losses.items()}

    def update(self, loss: torch.Tensor) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1

    @torch.no_grad()
    def accuracy(self, scenes: int) -> dict[str, float]:
        """Share of held-out questions whose every answer token is the most likely one, by kind."""
        right: dict[str, list[bool]] = {}
        for i in range(0, scenes, 32):
            batch = make_batch(32, HELD_OUT, i)
            count = batch.owner.shape[1]
            which = choose_patches(batch.owner, count, 0)
            visual, _, _ = self.model.see(take(batch.patches, which), which)
            self._tell(right, visual, batch)
            mask, place = question_mask(count, self.which), positions(count, self.place)
            logits = self.model.answer(visual, batch.tokens, mask, place)
            wrong = (logits.argmax(-1) != batch.targets) & (batch.targets != IGNORE)
            for slot, kind in enumerate(self.plan):
                mine = self.which == slot
                clear = (batch.targets[:, mine] != IGNORE).any(1)
                right.setdefault(kind, []).extend((~wrong[:, mine].any(1))[clear].tolist())
        return {kind: sum(values) / len(values) for kind, values in right.items()}

    def _tell(self, right: dict[str, list[bool]], visual: torch.Tensor, batch: Batch) -> None:
        """What the visual tokens of things say by themselves."""
        tokens, words = F.normalize(visual, dim=-1), F.normalize(self.model.words, dim=-1)
        for group in ("color", "shape", "letter"):
            said = (tokens @ words[WORD_IDS[group]].T).argmax(-1)
            for name, first, last in (("salient", 1, 3), ("faint", 4, 5)):
                mine = (batch.owner >= first) & (batch.owner <= last)
                same = (said == batch.labels[group])[mine]
                right.setdefault(f"{name}-{group}", []).extend(same.tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stages", type=int, nargs=3, default=STAGES, metavar="STEP")
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--until", type=int, help="stop early, to be resumed")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, metavar="DIR")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    trainer = Trainer(arguments)
    trainer.load()
    end = arguments.until or arguments.stages[-1]
    bar = tqdm(total=arguments.stages[-1], initial=trainer.step, mininterval=5)
    saved = time.monotonic()
    with ThreadPoolExecutor(1) as ahead:
        draw = lambda: ahead.submit(make_batch, arguments.batch, arguments.seed, trainer.step)  # noqa: E731
        batch = draw()
        while trainer.step < end:
            now, trainer.step = batch.result(), trainer.step + 1
            batch = draw()
            trainer.step -= 1
            losses = trainer.train_step(now)
            bar.update()
            bar.set_postfix({name: f"{loss:.2f}" for name, loss in losses.items()})
            if trainer.step % 100 == 0 or trainer.step == end:
                scores = trainer.accuracy(32 if trainer.step < end else 512)
                bar.write(f"{trainer.step} " + " ".join(f"{k} {v:.2f}" for k, v in scores.items()))
            if time.monotonic() - saved > 120 or trainer.step == end:
                trainer.save()
                saved = time.monotonic()


if __name__ == "__main__":
    main()
