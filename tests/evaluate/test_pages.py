"""Pages of small print: the same seed gives the same page, and every answer is what was printed."""

from __future__ import annotations

import io
from fractions import Fraction

import numpy as np
from PIL import Image
from vtprune_evaluate.contender import contenders
from vtprune_evaluate.datasets.pages import PAGES
from vtprune_evaluate.pages import SIDE, SQUARE, draw_page


def test_a_seed_is_a_page() -> None:
    assert np.array_equal(draw_page(1, 2).pixels, draw_page(1, 2).pixels)
    assert not np.array_equal(draw_page(1, 2).pixels, draw_page(1, 3).pixels)


def test_a_code_stands_in_its_square_and_nowhere_else() -> None:
    """The same letter and digit on two pages look alike, up to paper, ink and a pixel's shift."""
    seen: dict[str, np.ndarray] = {}
    for seed in range(40):
        page = draw_page(3, seed)
        for letter, square in page.squares.items():
            row, column = divmod(square, SIDE)
            cut = page.pixels[row * SQUARE :, column * SQUARE :, 0][:SQUARE, :SQUARE].astype(float)
            ink = (cut.max() - cut) / (cut.max() - cut.min())
            text = letter + page.codes[letter]
            other = seen.setdefault(text, ink)
            shifted = [np.roll(ink, by, axis=1) for by in (-1, 0, 1)]
            assert min(np.abs(each - other).mean() for each in shifted) < 0.06
    assert len(seen) > 150


def test_items_ask_about_what_is_there() -> None:
    items = list(PAGES.items(None, 12))
    assert [item.image for item in items] == ["0"] * 4 + ["1"] * 4 + ["2"] * 4
    assert len({item.id for item in items}) == 12
    for item in items:
        codes = draw_page(7, int(item.image)).codes
        letter = item.prompt.removeprefix("what does ").removesuffix(" say?").upper()
        assert codes[letter] == item.reference
        assert Image.open(io.BytesIO(item.load())).size == (224, 224)
    assert PAGES.score(" 7", "7") == 1.0
    assert PAGES.score("1", "7") == 0.0


def test_every_share_is_asked_for_with_and_without_the_floor() -> None:
    found = contenders(["vispruner"], [Fraction(1, 2)], floor="text")
    assert [each.label for each in found] == ["unpruned@1", "vispruner@1/2", "vispruner floor@1/2"]
    settings = {"method": "vispruner", "rate": 0.5}
    assert [each.body()["vtprune"] for each in found] == [
        {"rate": 0.0},
        settings,
        {**settings, "floor": "text"},
    ]
