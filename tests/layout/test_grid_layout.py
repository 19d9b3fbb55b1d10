"""Breaks between the rows of a grid of which tokens are missing, and frames that are joined."""

from __future__ import annotations

import random

import torch

from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.layout.raster import arrange
from vllm_pruner.methods.base import Need
from vllm_pruner.tower import FEATURES


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


def test_a_token_of_joined_frames_has_what_the_tower_says_of_it_in_each() -> None:
    clip = GridLayout(2, 3, frames=4, joined=2)
    assert (clip.tokens, clip.encoded) == (24, 48)
    draw = torch.Generator().manual_seed(0)
    features, keys, scores = (
        torch.randn(2, clip.encoded, *width, generator=draw) for width in ((5,), (3,), ())
    )
    values = {FEATURES: features, Need.KEYS: keys, Need.IMPORTANCE: scores}
    found = arrange(values, clip)
    for token in range(clip.tokens):
        frame, place = divmod(token, 6)
        one, other = (12 * frame + 6 * half + place for half in range(2))
        assert torch.equal(
            found[FEATURES][:, token], torch.cat([features[:, one], features[:, other]], dim=1)
        )
        assert torch.equal(found[Need.KEYS][:, token], keys[:, [one, other]].mean(dim=1))
        assert torch.equal(found[Need.IMPORTANCE][:, token], scores[:, [one, other]].sum(dim=1))
