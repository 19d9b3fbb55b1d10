"""Placeholders go, structure stays, and every run keeps its share."""

from __future__ import annotations

import random

from vllm_pruner.layout.cuts import between_frames, cut_joined, cut_runs
from vllm_pruner.layout.shares import shares

START, PLACE, BREAK, END = range(4)


def test_a_run_between_marks() -> None:
    full = [START, *[PLACE] * 6, END]
    assert cut_runs(full, [token == PLACE for token in full], 2) == [START, PLACE, PLACE, END]


def test_every_structure_token_stays_and_the_count_is_exact() -> None:
    draw = random.Random(0)
    for _ in range(200):
        sizes = [draw.randint(1, 9) for _ in range(draw.randint(1, 6))]
        full = [START, *(token for size in sizes for token in [*[PLACE] * size, BREAK]), END]
        kept = draw.randint(1, sum(sizes))
        short = cut_runs(full, [token == PLACE for token in full], kept)
        expected = shares(sizes, kept)
        assert short == [
            START,
            *(token for size in expected for token in [*[PLACE] * size, BREAK]),
            END,
        ]
        assert short.count(PLACE) == kept


def test_joined_frames_are_one_run_with_room_for_what_is_between_them() -> None:
    draw = random.Random(0)
    for _ in range(200):
        sizes = [draw.randint(1, 9) for _ in range(draw.randint(1, 6))]
        between = [(END, *[BREAK] * draw.randint(0, 3), START) for _ in sizes[1:]]
        full = [BREAK, START, *[PLACE] * sizes[0]]
        for text, size in zip(between, sizes[1:], strict=True):
            full += [*text, *[PLACE] * size]
        full += [END, BREAK]
        is_embed, kept = [token == PLACE for token in full], draw.randint(1, sum(sizes))
        assert between_frames(full, is_embed) == tuple(between)
        run = [PLACE] * (kept + sum(map(len, between)))
        assert cut_joined(full, is_embed, kept) == [BREAK, START, *run, END, BREAK]
