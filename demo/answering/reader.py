"""The reader: the demo LLaVA that answers about scenes, with words to read codes in small print.

Only the vocabulary differs from the answering model's: it adds the letters that label codes, and
the digits that no scene has.
"""

from __future__ import annotations

import torch
from network import Answerer
from torch import nn
from vocabulary import IDS
from vtprune_evaluate.pages import DIGITS, LABELS

WORDS = [letter.lower() for letter in LABELS] + [digit for digit in DIGITS if digit not in IDS]
READER = IDS | {word: len(IDS) + i for i, word in enumerate(WORDS)}
"""The ids of all its words."""
LABEL_IDS = torch.tensor([READER[letter.lower()] for letter in LABELS])
DIGIT_IDS = torch.tensor([READER[digit] for digit in DIGITS])


def encode(text: str) -> list[int]:
    """The ids of a question or an answer about a page."""
    return [READER[word] for word in text.replace("?", " ?").split()]


@torch.no_grad()
def widen(model: Answerer) -> None:
    """Add the reader's words to the model's embeddings, orthogonal to those that it has."""
    text = model.llava.config.text_config
    old = model.words.detach()
    room = torch.linalg.qr(torch.cat([old.T, torch.randn(old.shape[1], old.shape[1])], 1))[0]
    new = room.T[len(old) : len(READER)] * old.norm(dim=1).mean()
    words = nn.Parameter(torch.cat([old, new]))
    model.decoder.embed_tokens.weight = words
    model.llava.lm_head.weight = nn.Parameter(words.detach().clone(), requires_grad=False)
    text.vocab_size = len(READER)
