"""Train the reader: python demo/answering/reader_train.py [--steps N]

It begins with the weights of demo/llava, which answers about scenes, and learns to read codes in
small print; every other step is of scenes, so that it doesn't forget them.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch
from batches import take
from losses import answer_loss, flat_loss
from network import Answerer, positions, question_mask
from reader import LLAVA_READER, more_words
from reader_batches import PageBatch, make_page_batch, page_layout
from reader_losses import code_loss, look_loss
from safetensors.torch import load_file
from torch import nn
from train import SceneTrainer
from trainer import DEFAULT_OUT, HELD_OUT

DEMO = Path(__file__).resolve().parents[1]
sys.path.append(str(DEMO))

from weights import published_name  # noqa: E402  (beside this folder, shared with the random models)

PEAK = 1e-3
PATCHES = (128, 256)
"""Patches of a page that a step encodes; steps take these numbers in turn."""


def load_published(model: Answerer, folder: Path) -> None:
    """Load the weights of an exported demo LLaVA, which lacks the head that reports."""
    names = {published_name(name): name for name in model.llava.state_dict()}
    weights = load_file(folder / "model.safetensors")
    state = {names[name]: value for name, value in weights.items() if name in names}
    model.llava.load_state_dict(state)


@torch.no_grad()
def widen(model: Answerer) -> None:
    """Add the reader's words to the model's embeddings."""
    words = nn.Parameter(more_words(model.words.detach(), len(LLAVA_READER.ids)))
    model.decoder.embed_tokens.weight = words
    model.llava.lm_head.weight = nn.Parameter(words.detach().clone(), requires_grad=False)
    model.llava.config.text_config.vocab_size = len(words)


class ReaderTrainer(SceneTrainer):
    """Trains on pages and, by default every other step, on scenes."""

    planned, sizes, peaks = {"joint": 700}, {"joint": 12}, {"joint": PEAK}
    out = DEFAULT_OUT.with_name("answering-reader")

    def make_model(self) -> Answerer:
        model = Answerer()
        load_published(model, DEMO / "llava")
        widen(model)
        return model

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__("joint", arguments)
        self.page_which, self.page_place, self.names, self.ends = page_layout(LLAVA_READER)
        self.page_weight = torch.ones(len(self.page_which))

    def load(self) -> None:
        """Resume from the checkpoint, if there is one."""
        if self.file("joint").exists():
            state = torch.load(self.file("joint"), weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = state["step"]

    def make_batch(self, size: int, *seed: int) -> Any:
        is_page = seed[0] != HELD_OUT and seed[-1] % self.arguments.every != 0
        return make_page_batch(size, *seed) if is_page else super().make_batch(size, *seed)

    def losses(self, batch: Any) -> dict[str, torch.Tensor]:
        return self.page_losses(batch) if isinstance(batch, PageBatch) else super().losses(batch)

    def page_losses(self, batch: PageBatch) -> dict[str, torch.Tensor]:
        """The weighted losses of a page batch: of the tower's tokens, the answers and attention."""
        which = choose(batch.owner, PATCHES[self.step // 2 % 2], self.step)
        owner, digit = batch.owner.gather(1, which), batch.digit.gather(1, which)
        visual, _, _ = self.model.see(take(batch.patches, which), which)
        logits, states, mask, place = self.page_answers(visual, which.shape[1], batch)
        guide = look_loss(self.model, states, owner, batch, mask, place, self.names, self.ends)
        return {
            "flat": 3.0 * flat_loss(visual, self.model.words),
            "read": code_loss(visual, owner, digit, self.model.words, LLAVA_READER),
            "page": answer_loss(logits, batch.targets, self.page_weight),
            "look": 0.2 * guide,
        }

    def page_answers(self, visual: torch.Tensor, patches: int, batch: PageBatch) -> Any:
        mask = question_mask(2 + patches, self.page_which)
        place = positions(patches, self.page_place)
        return *self.model.answer(visual, batch.tokens, mask, place), mask, place

    @torch.no_grad()
    def page_accuracy(self, pages: int) -> float:
        """Share of questions about held-out pages whose digit is right."""
        right = []
        for i in range(0, pages, 32):
            batch = make_page_batch(32, HELD_OUT, i, 1)
            which = torch.arange(batch.owner.shape[1]).expand(32, -1)
            visual, _, _ = self.model.see(take(batch.patches, which), which)
            logits = self.page_answers(visual, which.shape[1], batch)[0]
            said, wanted = logits[:, self.ends].argmax(-1), batch.targets[:, self.ends]
            right += (said == wanted).flatten().tolist()
        return sum(right) / len(right)

    def run(self) -> None:
        """Train to the end, saving every two minutes."""
        began = saved = time.monotonic()
        size = self.arguments.batch or self.sizes["joint"]
        while self.step < self.steps:
            batch = self.make_batch(size, self.arguments.seed, 9, self.step)
            losses = self.train_step(batch)
            if self.step % 10 in (0, 1):
                each = " ".join(f"{name} {loss:.2f}" for name, loss in losses.items())
                print(f"{self.step} {time.monotonic() - began:.0f} s {each}", flush=True)
            if time.monotonic() - saved > 120 or self.step == self.steps:
                self.save()
                saved = time.monotonic()
            if self.step % 50 == 0 or self.step == self.steps:
                print(f"{self.step} pages {self.page_accuracy(32):.3f}", flush=True)
        scores = self.accuracy(64).items() if self.arguments.scenes else ()
        print(" ".join(f"{kind} {share:.2f}" for kind, share in scores))


def choose(owner: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """`count` patches per page, ascending [B, count]: those of codes first, the rest at random."""
    lot = torch.rand(owner.shape, generator=torch.Generator().manual_seed(seed))
    return (lot + (owner > 0)).topk(count, dim=1).indices.sort(dim=1).values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--every", type=int, default=2, metavar="N", help="every Nth is of scenes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, metavar="DIR")
    parser.add_argument("--scenes", action="store_true", help="print accuracy on scenes")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    training = ReaderTrainer(arguments)
    training.load()
    training.run()


if __name__ == "__main__":
    main()
