"""Pages of small print: which digit follows a letter. No files are needed.

Each of a page's four questions depends on one of about 130 printed places, so it is lost if pruning
drops that place. Pages are drawn from seeds that training never uses.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from PIL import Image

from vtprune_evaluate.item import Dataset, Item, mean_score
from vtprune_evaluate.pages import Page, draw_page, question_of

__all__ = ["PAGES"]

SEED, DEFAULT_ITEMS, ASKED = 7, 1000, 4


@lru_cache(maxsize=256)
def _page(number: int) -> Page:
    return draw_page(SEED, number)


def _png(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(_page(number).pixels).save(file, "PNG")
    return file.getvalue()


def _items(folder: Path | None, limit: int | None) -> Iterator[Item]:
    for i in range(DEFAULT_ITEMS if limit is None else limit):
        number, which = divmod(i, ASKED)
        codes = _page(number).codes
        lot = np.random.default_rng((SEED, number)).permutation(sorted(codes))
        letter = str(lot[which % len(lot)])
        load = partial(_png, number)
        yield Item(f"{number}-{which}", str(number), load, question_of(letter), codes[letter])


def _score(answer: str, reference: str) -> float:
    return float(answer.split() == reference.split())


PAGES = Dataset("pages", _items, _score, mean_score, max_tokens=4)
