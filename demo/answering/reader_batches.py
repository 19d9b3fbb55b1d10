"""Training batches of the reader: pages as patches, and questions about their codes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from batches import GRID, IGNORE, to_patches
from reader import encode
from vocabulary import ASSISTANT, EOS
from vtprune_evaluate.pages import DIGITS, LABELS, draw_page, question_of

ASKED = 8
"""Questions per page, all in one sequence."""


@dataclass(slots=True)
class PageBatch:
    """`patches` [B, 256, 588], bytes; `owner` [B, 256]: 1 + the label of the code in the patch, 0
    for none; `digit` [B, 256]: the code's digit; `about` [B, ASKED]: the owners that are asked
    about; `tokens`, `targets` [B, L]."""

    patches: torch.Tensor
    owner: torch.Tensor
    digit: torch.Tensor
    about: torch.Tensor
    tokens: torch.Tensor
    targets: torch.Tensor


def make_page_batch(size: int, *seed: int) -> PageBatch:
    """The batch for a seed: page i is drawn from `(*seed, i)`."""
    patches, tokens, targets = [], [], []
    owner = np.zeros((size, GRID * GRID), np.int64)
    digit = np.zeros_like(owner)
    about = np.zeros((size, ASKED), np.int64)
    for i in range(size):
        page = draw_page(*seed, i)
        patches.append(to_patches(page.pixels))
        for letter, square in page.squares.items():
            owner[i, square] = 1 + LABELS.index(letter)
            digit[i, square] = DIGITS.index(page.codes[letter])
        order = np.random.default_rng((*seed, i)).permutation(sorted(page.codes))
        asked = [str(order[j % len(order)]) for j in range(ASKED)]
        about[i] = [1 + LABELS.index(letter) for letter in asked]
        text: list[int] = []
        wanted: list[int] = []
        for letter in asked:
            words, answer = [*encode(question_of(letter)), ASSISTANT], encode(page.codes[letter])
            text += [*words, *answer]
            wanted += [IGNORE] * (len(words) - 1) + [*answer, EOS]
        tokens.append(text)
        targets.append(wanted)
    return PageBatch(
        torch.from_numpy(np.stack(patches)),
        *(torch.from_numpy(each) for each in (owner, digit, about)),
        torch.tensor(tokens),
        torch.tensor(targets),
    )


def page_layout() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """For every token of a sequence's text, the index of its question [L] and its position in that
    question [L]; for every question, where it names the letter and where it ends [ASKED]."""
    question = [*encode(question_of(LABELS[0])), ASSISTANT]
    length = len(question) + 1
    named = question.index(encode(LABELS[0].lower())[0])
    begins = torch.arange(ASKED) * length
    which = torch.arange(ASKED).repeat_interleave(length)
    return which, torch.arange(length).repeat(ASKED), begins + named, begins + len(question) - 1
