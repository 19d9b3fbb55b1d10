"""The readers: demo models that answer about scenes, with words to read codes in small print.

Only the vocabulary differs from the answering model's: it adds the letters that label codes, and
the digits that no scene has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from vocabulary import ASSISTANT, CLOSING, IDS, QWEN
from vtprune_evaluate.pages import DIGITS, LABELS

_WORDS = [letter.lower() for letter in LABELS] + [digit for digit in DIGITS if digit not in IDS]


@dataclass(frozen=True, slots=True)
class Reader:
    """The vocabulary of a reader, and how its questions end."""

    ids: Mapping[str, int]
    """The ids of all its words."""
    closing: tuple[int, ...]
    """Tokens between a question and its answer."""

    def encode(self, text: str) -> list[int]:
        """The ids of a question or an answer about a page."""
        return [self.ids[word] for word in text.replace("?", " ?").split()]

    @property
    def labels(self) -> torch.Tensor:
        """The id of each letter of `LABELS`."""
        return torch.tensor([self.ids[letter.lower()] for letter in LABELS])

    @property
    def digits(self) -> torch.Tensor:
        """The id of each of `DIGITS`."""
        return torch.tensor([self.ids[digit] for digit in DIGITS])


def _with_words(ids: Mapping[str, int], first: int) -> dict[str, int]:
    return {**ids, **{word: first + i for i, word in enumerate(_WORDS)}}


LLAVA_READER = Reader(_with_words(IDS, len(IDS)), (ASSISTANT,))
QWEN_READER = Reader(_with_words(IDS, max(QWEN.values()) + 1), CLOSING)


@torch.no_grad()
def more_words(old: torch.Tensor, count: int) -> torch.Tensor:
    """Embeddings of `count` words, those of `old` [V, D] first; the others are orthogonal to them
    and to each other."""
    room = torch.linalg.qr(torch.cat([old.T, torch.randn(old.shape[1], old.shape[1])], 1))[0]
    return torch.cat([old, room.T[len(old) : count] * old.norm(dim=1).mean()])
