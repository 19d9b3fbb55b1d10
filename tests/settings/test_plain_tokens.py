"""The share of tokens that show nothing but plain cells, beside one counted cell by cell."""

from __future__ import annotations

from math import ceil, floor, isqrt

import numpy as np
import pytest

from vllm_pruner.picture import UNSEEN, Picture
from vllm_pruner.settings.plain_tokens import plain_share


def _picture(plain: np.ndarray) -> Picture:
    return Picture(0.0, float(plain.mean()), np.packbits(plain).tobytes())


def _literal(plain: np.ndarray, tokens: int) -> float:
    side = isqrt(tokens)
    spans = [
        slice(floor(32 * place / side), ceil(32 * (place + 1) / side)) for place in range(side)
    ]
    return sum(bool(plain[rows, columns].all()) for rows in spans for columns in spans) / side**2


@pytest.mark.parametrize("tokens", [1, 2, 64, 100, 256, 576, 1000, 1024, 1369, 4096, 16384])
def test_a_token_is_plain_if_all_of_its_cells_are(tokens: int) -> None:
    draw = np.random.default_rng(tokens)
    for some in (0.02, 0.3, 0.9):
        busy = np.kron(draw.random((8, 8)) < some, np.ones((4, 4), bool))
        share = plain_share(_picture(~busy), tokens)
        assert share == pytest.approx(_literal(~busy, tokens), abs=1e-12)
        assert share <= (~busy).mean() + 1e-12 or isqrt(tokens) > 32


def test_all_of_an_empty_page_none_of_a_full_one_and_none_of_what_was_not_seen() -> None:
    cells = np.ones((32, 32), bool)
    assert plain_share(_picture(cells), 500) == 1
    assert plain_share(_picture(~cells), 500) == 0
    assert plain_share(UNSEEN, 500) == 0
    assert plain_share(Picture(0.5, 0.5), 500) == 0


def test_tokens_of_a_small_picture_are_larger_than_cells() -> None:
    """Every other column of cells is busy: no token of 16 x 16 is plain, half of 32 x 32 are."""
    cells = np.ones((32, 32), bool)
    cells[:, ::2] = False
    assert plain_share(_picture(cells), 256) == 0
    assert plain_share(_picture(cells), 1024) == 0.5
    assert plain_share(_picture(cells), 4096) == 0.5
