"""What is kept of a video's frames and what stands between them, in order and where it stood."""

from __future__ import annotations

import random

import torch

from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.layout.joined_frames import JoinedFrames


def _walk(
    grid: GridLayout, within: GridLayout, between: list[tuple[int, ...]], kept: list[int]
) -> tuple[list[int], list[tuple[int, int, int]]]:
    """The order and the places of one video's rows, token by token of the unpruned run."""
    order, places = [], []
    start, other = 0, len(kept)
    for frame in range(grid.frames):
        for place in range(grid.frame_tokens):
            if (token := frame * grid.frame_tokens + place) in kept:
                row, column = divmod(place, grid.columns)
                row, column = (
                    row * within.rows // grid.rows,
                    column * within.columns // grid.columns,
                )
                order.append(kept.index(token))
                places.append((start, start + row, start + column))
        start += max(within.rows, within.columns)
        for _ in between[frame] if frame < len(between) else ():
            order.append(other)
            places.append((start, start, start))
            start, other = start + 1, other + 1
    return order, places


def test_the_rows_of_a_run_are_those_of_the_unpruned_one_without_what_is_removed() -> None:
    draw = random.Random(0)
    for _ in range(200):
        frames = draw.randint(2, 5)
        grid = GridLayout(draw.randint(1, 5), draw.randint(1, 5), frames, apart=True)
        between = [tuple(range(draw.randint(1, 9))) for _ in range(frames - 1)]
        keep = draw.randint(1, grid.tokens)
        within = draw.choice([grid, grid.compact(keep)])
        index = torch.tensor([sorted(draw.sample(range(grid.tokens), keep)) for _ in range(3)])
        joined = JoinedFrames.of(grid, index, tuple(between))
        assert joined.tokens.tolist() == [token for text in between for token in text]
        expected = [_walk(grid, within, between, kept) for kept in index.tolist()]
        assert joined.order().tolist() == [order for order, _ in expected]
        found = joined.places(within)
        assert [[*map(tuple, rows)] for rows in found.tolist()] == [each for _, each in expected]
        whole = torch.arange(grid.tokens).expand(1, -1)
        every = JoinedFrames.of(grid, whole, tuple(between)).places(grid)
        assert int(every.max()) < grid.reach(len(joined.tokens))
