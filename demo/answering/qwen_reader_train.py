"""Train the reader of Qwen2.5-VL: python demo/answering/qwen_reader_train.py joint [--steps N]

It begins with the weights of demo/qwen, which answers about scenes, and learns to read codes in
small print instead. Pages are enlarged by two, so that a code fills one token. As large models do,
the tower always sees all of a picture: what it does with a part of one, it is never taught.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from losses import answer_loss, flat_loss
from network import question_mask
from qwen_network import QwenAnswerer, positions
from qwen_train import QwenTrainer, normalised
from reader import QWEN_READER, more_words
from reader_batches import PageBatch, make_qwen_pages, page_layout
from reader_losses import code_loss, look_loss
from safetensors.torch import load_file
from torch import nn
from trainer import DEFAULT_OUT, HELD_OUT, main
from vtprune_evaluate.pages import SIDE

DEMO = Path(__file__).resolve().parents[1]
sys.path.append(str(DEMO))

from weights import published_name  # noqa: E402  (beside this folder, shared with the random models)

LINES = (6, SIDE, 8)
"""Lines of the pages of a step; steps take them in turn."""


def load_published(model: QwenAnswerer, folder: Path) -> None:
    """Load the weights of an exported demo Qwen, which lacks the head that reports."""
    names = {published_name(name): name for name in model.qwen.state_dict()}
    weights = load_file(folder / "model.safetensors")
    model.qwen.load_state_dict({name: weights[published] for published, name in names.items()})


@torch.no_grad()
def widen(model: QwenAnswerer) -> None:
    """Add the reader's words to the model's embeddings."""
    words = nn.Parameter(more_words(model.words.detach(), len(QWEN_READER.ids) + 3))
    model.decoder.embed_tokens.weight = words
    model.qwen.lm_head.weight = nn.Parameter(words.detach().clone(), requires_grad=False)
    model.qwen.config.text_config.vocab_size = len(words)


class QwenReaderTrainer(QwenTrainer):
    """The one stage, over pages."""

    planned, sizes, peaks, begins_with = {"joint": 900}, {"joint": 8}, {"joint": 1e-3}, {}
    out = DEFAULT_OUT.with_name("answering-qwen-reader")

    def make_model(self) -> QwenAnswerer:
        model = QwenAnswerer()
        load_published(model, DEMO / "qwen")
        widen(model)
        self.page_which, self.page_place, self.names, self.ends = page_layout(QWEN_READER)
        self.page_weight = torch.ones(len(self.page_which))
        return model

    def make_batch(self, size: int, *seed: int) -> PageBatch:  # type: ignore[override]
        lines = SIDE if seed[0] == HELD_OUT else LINES[seed[-1] % len(LINES)]
        return make_qwen_pages(size if lines < SIDE else max(size // 2, 1), lines, *seed)

    def losses(self, batch: Any) -> dict[str, torch.Tensor]:
        visual, logits, states, mask, place = self._page(batch)
        words = self.model.words
        look = look_loss(self.model, states, batch.owner, batch, mask, place, self.names, self.ends)
        return {
            "flat": 3.0 * flat_loss(visual, words),
            "read": code_loss(visual, batch.owner, batch.digit, words, QWEN_READER),
            "page": answer_loss(logits, batch.targets, self.page_weight),
            "look": 0.2 * look,
        }

    def _page(self, batch: PageBatch) -> Any:
        size, squares = batch.owner.shape
        grid = (squares // SIDE, SIDE)
        visual, _, _ = self.model.see(normalised(batch.patches), grid)
        mask = question_mask(self.model.lead + squares + self.model.trail, self.page_which)
        place = positions(grid, torch.arange(squares).expand(size, -1), self.page_place)
        return visual, *self.model.answer(visual, batch.tokens, mask, place), mask, place

    @torch.no_grad()
    def accuracy(self, scenes: int) -> dict[str, float]:
        """The share of questions about `scenes` // 2 held-out pages whose digit is right."""
        right = []
        for i in range(0, scenes, 16):
            batch = self.make_batch(16, HELD_OUT, i)
            logits = self._page(batch)[1]
            said, wanted = logits[:, self.ends].argmax(-1), batch.targets[:, self.ends]
            right += (said == wanted).flatten().tolist()
        return {"pages": sum(right) / len(right)}


if __name__ == "__main__":
    main(QwenReaderTrainer, __doc__)
