"""The training loop of one stage: its steps, its checkpoints and its accuracy. What a model learns
from is in `train`, `qwen_train` and `reader_train`.

Batch n of a stage is drawn from (seed, stage, n), so a stage that was stopped resumes exactly.
"""

from __future__ import annotations

import argparse
import os
import time
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import torch
from batches import IGNORE, WORD_IDS, layout
from losses import KIND_WEIGHT, said_words, visual_room
from tqdm import tqdm
from vocabulary import ASSISTANT

HERE = Path(__file__).resolve().parent
DEFAULT_OUT = HERE.parents[1] / ".cache" / "training" / "answering"
STAGES = ["tower", "ideal", "real", "joint"]
WARMUP, FALL = 30, 0.35
"""AdamW's learning rate rises for WARMUP steps and falls for the last FALL of all steps."""
LABELS = torch.cat(list(WORD_IDS.values())).unique()
"""The words that tower and decoder share. They stay as drawn until the stage `joint`, so that both
can be trained at the same time."""
HELD_OUT = 2
"""First number of the seeds of the held-out scenes that accuracy is measured on."""


class Trainer(ABC):
    """A model, its optimiser, and the training loop of one stage."""

    planned: ClassVar[dict[str, int]]
    """Steps of each stage."""
    sizes: ClassVar[dict[str, int]]
    """Images per step."""
    peaks: ClassVar[dict[str, float]]
    """Peak learning rates."""
    out: ClassVar[Path] = DEFAULT_OUT
    """The folder of the checkpoints."""
    begins_with: ClassVar[dict[str, str]]
    """The stage whose decoder a stage begins with; its tower is that of `tower`."""
    closing: ClassVar[tuple[int, ...]] = (ASSISTANT,)
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

    @abstractmethod
    def make_model(self) -> Any:
        """The untrained model."""

    @abstractmethod
    def make_batch(self, size: int, *seed: int) -> Any:
        """The batch for a seed."""

    @abstractmethod
    def losses(self, batch: Any) -> dict[str, torch.Tensor]:
        """The weighted losses of the stage by name; training minimises their sum."""

    @abstractmethod
    def whole(self, batch: Any) -> tuple[torch.Tensor, torch.Tensor, dict[str, list[float]]]:
        """For whole images: the visual tokens, the logits, and statistics of the tower by name."""

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

    def train_step(self, batch: Any) -> dict[str, float]:
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

    @torch.no_grad()
    def accuracy(self, scenes: int) -> dict[str, float]:
        """By kind, the share of held-out questions with every answer token predicted; by group, the
        share of visual tokens nearest to their right word; and means of the statistics."""
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


def main(trainer: type[Trainer], description: str | None) -> None:
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
