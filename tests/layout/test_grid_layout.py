"""Breaks between the rows of a grid of which tokens are missing."""

from __future__ import annotations

import random

import torch

from vllm_pruner.layout.grid_layout import GridLayout


def test_every_row_but_the_last_has_its_break_behind_what_is_kept_of_it() -> None:
    draw = random.Random(0)
    for _ in range(200):
        grid = GridLayout(draw.randint(1, 6), draw.randint(1, 6))
        keep = draw.randint(1, grid.tokens)
        index = torch.tensor([sorted(draw.sample(range(grid.tokens), keep)) for _ in range(3)])
        for kept, order in zip(index.tolist(), grid.order_with_breaks(index).tolist(), strict=True):
            rows = [
                [place for place, token in enumerate(kept) if token // grid.columns == row]
                for row in range(grid.rows)
            ]
            expected = rows[0]
            for number, row in enumerate(rows[1:]):
                expected = [*expected, keep + number, *row]
            assert order == expected
