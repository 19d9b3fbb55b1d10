"""Train the demo model that answers, in stages: python demo/answering/train.py STAGE [--steps N]

tower  the vision tower learns to map each patch to the decoder's words for what it shows
ideal  the decoder learns to answer, from synthetic visual tokens of a tower without mistakes
real   the decoder, on tokens of the tower's latest checkpoint (may run while tower still trains)
joint  all of it, on whole images, with a loss that keeps texture tokens apart

Batch n of a stage is drawn from (seed, stage, n), so a stage that was stopped resumes exactly.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from batches import IGNORE, WORD_IDS, Batch, layout, make_batch, take
from guidance import guidance_loss, pooling_loss
from losses import (
    KIND_WEIGHT,
    answer_loss,
    flat_loss,
    ideal_tokens,
    patch_loss,
    said_words,
    spread_loss,
    visual_room,
)
from mechanism import mechanism
from network import Answerer, positions, question_mask
from start import start_decoder, start_tower
from tqdm import tqdm
from vocabulary import ASSISTANT

HERE = Path(__file__).resolve().parent
DEFAULT_OUT = HERE.parents[1] / ".cache" / "training" / "answering"
STAGES = ["tower", "ideal", "real", "joint"]
STEPS = {"tower": 2100, "ideal": 900, "real": 300, "joint": 400}
BATCH = {"tower": 24, "ideal": 12, "real": 12, "joint": 12}
PEAK = {"tower": 1.5e-3, "ideal": 1.5e-3, "real": 1.5e-3, "joint": 4e-4}
WARMUP, FALL = 30, 0.35
"""AdamW's learning rate rises for WARMUP steps and falls for the last FALL of all steps."""
PATCHES = {"tower": (128,), "ideal": (48,), "real": (96, 64, 256, 128), "joint": (256, 128)}
"""Patches of an image that a step encodes; a stage's steps take these numbers in turn."""
LABELS = torch.cat(list(WORD_IDS.values())).unique()
"""The words that tower and decoder share. They stay as drawn until the stage `joint`, so that both
can be trained at the same time."""
HELD_OUT = 2
"""First number of the seeds of the held-out scenes that accuracy is measured on."""


def choose_patches(owner: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """`count` patches per image, ascending [B, count]: at random, but those that show something are
    preferred, tiles less so."""
    if count == owner.shape[1]:
        return torch.arange(count).expand(len(owner), -1)
    lot = torch.rand(owner.shape, generator=torch.Generator().manual_seed(seed))
    chance = lot + 0.8 * (owner > 0) - 0.4 * (owner == 7)
    return chance.topk(count, dim=1).indices.sort(dim=1).values


class Trainer:
    """The model, its optimiser, and the training loop of one stage."""

    planned, sizes, peaks, out = STEPS, BATCH, PEAK, DEFAULT_OUT
    """Each stage's steps, images per step and peak learning rate; the folder of the checkpoints."""
    begins_with = {"real": "ideal", "joint": "real"}
    """The stage whose decoder a stage begins with; its tower is that of `tower`."""
    closing: tuple[int, ...] = (ASSISTANT,)
    """Tokens between a question and its answer."""

    def __init__(self, stage: str, arguments: argparse.Namespace) -> None:
        self.stage, self.arguments, self.step = stage, arguments, 0
        self.steps = arguments.steps or self.planned[stage]
        torch.manual_seed(arguments.seed)
        self.model = self.make_model()
        self.names_of_tower = [n for n in self.model.state_dict() if "language_model" not in n]
        for name, parameter in self.model.named_parameters():
            alone = {"tower": "language_model" not in name, "joint": True}
            parameter.requires_grad_(alone.get(stage, "language_model" in name))
        learned = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(learned, lr=self.peaks[stage], betas=(0.9, 0.98))
        self.which, self.place, self.plan = layout(self.closing)
        self.tower_read = 0.0
        self.weight = torch.tensor([KIND_WEIGHT.get(self.plan[i], 1.0) for i in self.which])
        self.label_words = self.model.words.detach()[LABELS].clone()
        self.room = visual_room(self.model.words.detach())

    def make_model(self) -> Any:
        """The untrained model."""
        model = Answerer()
        start_tower(model)
        start_decoder(model)
        return model

    def make_batch(self, size: int, *seed: int) -> Any:
        """The batch for a seed."""
        return make_batch(size, *seed)

    def file(self, stage: str) -> Path:
        folder: Path = self.arguments.out or self.out
        return folder / f"{stage}.pt"

    def load(self) -> None:
        """Resume this stage, or begin it with the checkpoints of the earlier ones."""
        if self.file(self.stage).exists():
            state = torch.load(self.file(self.stage), weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = state["step"]
        elif self.stage in self.begins_with:
            state = torch.load(self.file(self.begins_with[self.stage]), weights_only=True)
            self.model.load_state_dict(state["model"])
            self.read_tower()

    def read_tower(self) -> None:
        """Load the tower that its stage saved last, unless it was loaded already."""
        file = self.file("tower")
        if file.stat().st_mtime != self.tower_read:
            self.tower_read = file.stat().st_mtime
            state = torch.load(file, weights_only=True)["model"]
            tower = {name: state[name] for name in self.names_of_tower}
            self.model.load_state_dict(tower, strict=False)

    def save(self) -> None:
        """Save to a temporary file, then rename it, so that a checkpoint is never partial."""
        file = self.file(self.stage)
        file.parent.mkdir(parents=True, exist_ok=True)
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save({**state, "step": self.step}, file.with_suffix(".part"))
        os.replace(file.with_suffix(".part"), file)

    def learning_rate(self) -> float:
        """Of this step: linear warmup, a constant peak, linear decay."""
        left = (self.steps - self.step) / (FALL * self.steps)
        return self.peaks[self.stage] * min(1, (self.step + 1) / WARMUP, max(left, 0.02))

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The weighted losses of the stage by name; training minimises their sum."""
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

    def train_step(self, batch: Batch) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        losses = self.losses(batch)
        self.optimizer.zero_grad()
        sum(losses.values(), torch.zeros(())).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        if self.stage in ("ideal", "real"):
            with torch.no_grad():
                self.model.words[LABELS] = self.label_words
        self.step += 1
        return {name: loss.item() for name, loss in losses.items()}

    def whole(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, dict[str, list[float]]]:
        """For whole images: the visual tokens, the logits, and the statistics of `mechanism`."""
        which = choose_patches(batch.owner, batch.owner.shape[1], 0)
        visual, _, before = self.model.see(take(batch.patches, which), which)
        mask = question_mask(2 + which.shape[1], self.which)
        place = positions(which.shape[1], self.place)
        logits, _ = self.model.answer(visual, batch.tokens, mask, place)
        return visual, logits, mechanism(self.model, visual, before, batch.owner)

    @torch.no_grad()
    def accuracy(self, scenes: int) -> dict[str, float]:
        """By kind, the share of held-out questions with every answer token predicted; by group, the
        share of visual tokens nearest to their right word; and means of `mechanism`."""
        right: dict[str, list[float]] = {}
        for i in range(0, scenes, 32):
            batch = self.make_batch(32, HELD_OUT, i)
            visual, logits, found = self.whole(batch)
            for name, values in {**found, **said_words(visual, batch, self.model.words)}.items():
                right.setdefault(name, []).extend(values)
            wrong = (logits.argmax(-1) != batch.targets) & (batch.targets != IGNORE)
            for slot, kind in enumerate(self.plan):
                mine = self.which == slot
                clear = (batch.targets[:, mine] != IGNORE).any(1)
                right.setdefault(kind, []).extend((~wrong[:, mine].any(1))[clear].tolist())
        return {kind: sum(values) / len(values) for kind, values in right.items()}

    def run(self) -> None:
        """Train to the end of the stage, saving every two minutes."""
        bar = tqdm(total=self.steps, initial=self.step, mininterval=5, desc=self.stage)
        saved = time.monotonic()
        size = self.arguments.batch or self.sizes[self.stage]
        seed = (self.arguments.seed, STAGES.index(self.stage))
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(self.make_batch, size, *seed, self.step)
            while self.step < self.steps:
                batch = coming.result()
                coming = ahead.submit(self.make_batch, size, *seed, self.step + 1)
                if self.stage == "real" and self.step % 20 == 0:
                    self.read_tower()
                losses = self.train_step(batch)
                bar.update()
                bar.set_postfix({name: f"{loss:.2f}" for name, loss in losses.items()})
                if time.monotonic() - saved > 120 or self.step == self.steps:
                    self.save()
                    saved = time.monotonic()
                if self.step % 200 == 0 or self.step == self.steps:
                    scores = self.accuracy(64).items()
                    bar.write(f"{self.step} " + " ".join(f"{k} {v:.2f}" for k, v in scores))


def main(trainer: type[Trainer] = Trainer, description: str | None = __doc__) -> None:
    """Train the stage that the command line names."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--steps", type=int, help=f"default {trainer.planned}")
    parser.add_argument("--batch", type=int, help=f"images per step, default {trainer.sizes}")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help=f"default {trainer.out}", metavar="DIR")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    training = trainer(arguments.stage, arguments)
    training.load()
    training.run()


if __name__ == "__main__":
    main()
