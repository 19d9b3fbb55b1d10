"""Tokens that stand in a prompt by pairs of rows, with the breaks of both behind them."""

from __future__ import annotations

import random

import pytest
import torch

from vllm_pruner.layout.paired_rows import PairedRows


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7])
def test_kept_tokens_and_breaks_are_in_the_order_of_all(rows: int) -> None:
    """That of a table whose pairs of rows are read column by column, breaks in its last one."""
    draw = random.Random(rows)
    for columns in (1, 2, 5):
        grid = PairedRows(rows, columns)
        table = [[(row, column) for column in range(columns + 1)] for row in range(rows)]
        whole = [
            place
            for pair in (table[first : first + 2] for first in range(0, rows, 2))
            for column in zip(*pair, strict=True)
            for place in column
        ]
        keep = draw.randint(1, grid.tokens)
        index = torch.tensor([sorted(draw.sample(range(grid.tokens), keep)) for _ in range(3)])
        for kept, order in zip(index.tolist(), grid.order_with_breaks(index).tolist(), strict=True):
            numbered = {divmod(token, columns): place for place, token in enumerate(kept)}
            numbered |= {(row, columns): keep + row for row in range(rows)}
            assert order == [numbered[place] for place in whole if place in numbered]
        assert grid.breaks == rows
