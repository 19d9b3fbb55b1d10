"""Training batches of the readers: pages as patches, and questions about their codes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from batches import GRID, IGNORE, to_patches
from numpy.typing import NDArray
from qwen_batches import to_merged_patches
from reader import LLAVA_READER, QWEN_READER, Reader
from vocabulary import EOS
from vtprune_evaluate.pages import DIGITS, LABELS, SIDE, SQUARE, Page, draw_page, question_of

ASKED = 8
"""Questions per page, all in one sequence."""
TOKEN = 28
"""Side in pixels of a square of a page that Qwen's tower sees, enlarged by two."""


@dataclass(slots=True)
class PageBatch:
    """`patches` [B, N, 588] of N squares, [B, 4 N, 588] for Qwen, bytes; `owner` [B, N]: 1 + the
    label of the code in the square, 0 for none; `digit` [B, N]: the code's digit; `about`
    [B, ASKED]: the owners that are asked about; `tokens`, `targets` [B, L]."""

    patches: torch.Tensor
    owner: torch.Tensor
    digit: torch.Tensor
    about: torch.Tensor
    tokens: torch.Tensor
    targets: torch.Tensor


def make_page_batch(size: int, *seed: int) -> PageBatch:
    """The batch of whole pages for a seed: page i is drawn from `(*seed, i)`."""
    pages = [draw_page(*seed, i) for i in range(size)]
    patches = [to_patches(page.pixels) for page in pages]
    return _batch(patches, pages, GRID * GRID, LLAVA_READER, *seed)


def make_qwen_pages(size: int, rows: int, *seed: int) -> PageBatch:
    """The batch of `rows` consecutive lines of pages, enlarged by two; band i is of the first page
    from `(*seed, i)` on that has a code there."""
    pages = [_band(rows, *seed, i) for i in range(size)]
    large = [page.pixels.repeat(TOKEN // SQUARE, 0).repeat(TOKEN // SQUARE, 1) for page in pages]
    patches = [to_merged_patches(pixels) for pixels in large]
    return _batch(patches, pages, rows * SIDE, QWEN_READER, *seed)


def _band(rows: int, *seed: int) -> Page:
    """A part of a page: `rows` lines over its whole width, with at least one code."""
    top = int(np.random.default_rng((*seed, 2)).integers(SIDE - rows + 1))
    for other in range(100):
        page = draw_page(*seed, other)
        first, end = top * SIDE, (top + rows) * SIDE
        squares = {name: at - first for name, at in page.squares.items() if first <= at < end}
        if squares:
            pixels = page.pixels[top * SQUARE : (top + rows) * SQUARE]
            return Page(pixels, {name: page.codes[name] for name in squares}, squares)
    raise AssertionError("a hundred pages without a code")


def _batch(
    patches: list[NDArray[np.uint8]], pages: list[Page], squares: int, reader: Reader, *seed: int
) -> PageBatch:
    owner = np.zeros((len(pages), squares), np.int64)
    digit = np.zeros_like(owner)
    about, texts = [], []
    for i, page in enumerate(pages):
        for letter, square in page.squares.items():
            owner[i, square] = 1 + LABELS.index(letter)
            digit[i, square] = DIGITS.index(page.codes[letter])
        order = np.random.default_rng((*seed, i)).permutation(sorted(page.codes))
        asked = [str(order[j % len(order)]) for j in range(ASKED)]
        about.append([1 + LABELS.index(letter) for letter in asked])
        texts.append(_text(page, asked, reader))
    return PageBatch(
        torch.from_numpy(np.stack(patches)),
        torch.from_numpy(owner),
        torch.from_numpy(digit),
        torch.tensor(about),
        torch.tensor([tokens for tokens, _ in texts]),
        torch.tensor([targets for _, targets in texts]),
    )


def _text(page: Page, asked: list[str], reader: Reader) -> tuple[list[int], list[int]]:
    """The questions about the codes `asked` with their answers: tokens and targets."""
    tokens: list[int] = []
    targets: list[int] = []
    for letter in asked:
        words = [*reader.encode(question_of(letter)), *reader.closing]
        answer = reader.encode(page.codes[letter])
        tokens += [*words, *answer]
        targets += [IGNORE] * (len(words) - 1) + [*answer, EOS]
    return tokens, targets


def page_layout(reader: Reader) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """For every token of a sequence's text, the index of its question [L] and its position in that
    question [L]; for every question, where it names the letter and where it ends [ASKED]."""
    question = [*reader.encode(question_of(LABELS[0])), *reader.closing]
    length = len(question) + 1
    named = question.index(reader.encode(LABELS[0].lower())[0])
    begins = torch.arange(ASKED) * length
    which = torch.arange(ASKED).repeat_interleave(length)
    return which, torch.arange(length).repeat(ASKED), begins + named, begins + len(question) - 1
