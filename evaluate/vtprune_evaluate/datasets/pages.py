"""Pages of small print: which digit follows a letter. No files are needed. `pages-large` are the
same pages and questions, enlarged by two: a code fills a token of 28 pixels, as Qwen-VL has them.

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

__all__ = ["PAGES", "PAGES_LARGE"]

SEED, DEFAULT_ITEMS, ASKED = 7, 1000, 4


@lru_cache(maxsize=256)
def _page(number: int) -> Page:
    return draw_page(SEED, number)


def _png(number: int, zoom: int) -> bytes:
    file = io.BytesIO()
    pixels = _page(number).pixels.repeat(zoom, 0).repeat(zoom, 1)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _items(zoom: int, folder: Path | None, limit: int | None) -> Iterator[Item]:
    for i in range(DEFAULT_ITEMS if limit is None else limit):
        number, which = divmod(i, ASKED)
        codes = _page(number).codes
        lot = np.random.default_rng((SEED, number)).permutation(sorted(codes))
        letter = str(lot[which % len(lot)])
        load = partial(_png, number, zoom)
        yield Item(f"{number}-{which}", str(number), load, question_of(letter), codes[letter])


def _score(answer: str, reference: str) -> float:
    return float(answer.split() == reference.split())


PAGES = Dataset("pages", partial(_items, 1), _score, mean_score, max_tokens=4)
PAGES_LARGE = Dataset("pages-large", partial(_items, 2), _score, mean_score, max_tokens=4)
