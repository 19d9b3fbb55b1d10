"""More API servers are named where cores are free for them."""

from __future__ import annotations

import os

import pytest

from vllm_pruner.prompt.api_servers import advice, cores


@pytest.mark.parametrize(
    ("engines", "workers", "free", "count"),
    [(1, 1, 13, 4), (1, 1, 2, 3), (1, 1, 1, 2), (2, 1, 11, 4), (1, 8, 6, 4)],
)
def test_free_cores_are_counted_and_up_to_four_servers_named(
    engines: int, workers: int, free: int, count: int
) -> None:
    said = advice(engines, workers, free + 1 + engines * (1 + workers))
    assert said is not None
    assert f"{free} more are free: --api-server-count {count} " in said


@pytest.mark.parametrize(("engines", "workers", "of"), [(1, 1, 2), (1, 1, 3), (1, 8, 10)])
def test_nothing_is_said_without_a_free_core(engines: int, workers: int, of: int) -> None:
    assert advice(engines, workers, of) is None


def test_cores_that_others_were_given_are_not_counted() -> None:
    """As in a container, or under `taskset`."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert cores() == len(before)
