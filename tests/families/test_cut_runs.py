"""Placeholders go, structure stays, and every run keeps its share."""

from __future__ import annotations

import random

from vllm_pruner.family import cut_runs
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
