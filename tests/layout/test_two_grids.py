"""Two grids in one run, with marks around: where tokens and marks are, kept or not."""

from __future__ import annotations

import random

import pytest
import torch

from vllm_pruner.layout.two_grids import BREAK, END, FINE, WHOLE, TwoGrids

LAYOUTS = [
    TwoGrids((2, 3), (3, 4)),
    TwoGrids((2, 3), (3, 4), (False, True)),
    TwoGrids((14, 14), (23, 42), (False, True)),
    TwoGrids((1, 1), (1, 5), (False, False)),
]


def _run(layout: TwoGrids) -> list[int]:
    """An unpruned run as its author would write it, a token -1."""
    run = []
    for first, (rows, columns), has_breaks in zip(
        (WHOLE, FINE), (layout.whole, layout.fine), layout.breaks, strict=True
    ):
        run += [first, *([-1] * columns + [BREAK] * has_breaks) * rows, END]
    return run


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_all_marks_stand_among_the_kept_tokens_where_they_stood(layout: TwoGrids) -> None:
    run, draw = _run(layout), random.Random(0)
    assert run.count(-1) == layout.tokens == layout.encoded
    assert [mark for mark in run if mark >= 0] == layout.marks()
    for keep in {1, 2, layout.tokens // 2, layout.tokens}:
        kept = [sorted(draw.sample(range(layout.tokens), keep)) for _ in range(2)]
        found = layout.order_with_marks(torch.tensor(kept)).tolist()
        for index, order in zip(kept, found, strict=True):
            tokens, marks, expected = iter(range(layout.tokens)), iter(range(len(run))), []
            for each in run:
                if each >= 0:
                    expected.append(keep + next(marks))
                elif (token := next(tokens)) in index:
                    expected.append(index.index(token))
            assert order == expected


def test_the_two_grids_are_its_crops_and_both_show_the_whole_picture() -> None:
    layout = TwoGrids((2, 3), (4, 5))
    assert [len(crop) for crop in layout.patches_of_crops(torch.device("cpu"))] == [6, 20]
    assert not layout.fixed_shares and layout.whole_grid is None
    first, second = layout.views()
    assert (first.start, first.end, second.start, second.end) == (0, 6, 6, 26)
    assert (first.rows, second.rows, second.columns) == ((0, 2), (0, 2), (0, 3))
    assert (first.tokens, second.tokens) == (None, (4, 5))
