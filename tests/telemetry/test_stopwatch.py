"""Seconds of a device, by a CPU's clock and by events of a GPU that a stand-in records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from counted import COUNTER

from vllm_pruner.telemetry import metrics
from vllm_pruner.telemetry.stopwatch import Stopwatch


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_VTPRUNE_METRICS_DIR", str(tmp_path))


def _counted() -> float:
    return metrics.totals().get(("vtprune_test", "a"), 0.0)


def test_a_cpu_s_seconds_are_counted_at_once_and_by_piece(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = iter([10.0, 13.0, 20.0, 21.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    watch = Stopwatch(COUNTER, torch.device("cpu"))
    assert watch.seconds_per_piece is None
    with watch.measure(pieces=3, method="a"):
        pass
    assert (_counted(), watch.seconds_per_piece) == (3.0, 1.0)
    with watch.measure(method="a"):
        pass
    assert (_counted(), watch.seconds_per_piece) == (4.0, 1.0)


def test_nothing_is_measured_while_it_is_switched_off() -> None:
    watch = Stopwatch(COUNTER, torch.device("cpu"))
    watch.enabled = False
    with watch.measure(method="a"):
        pass
    assert _counted() == 0
    assert watch.seconds_per_piece is None


class Event:
    """Stands for a `torch.cuda.Event`: a second passes from each to the next, and a device is done
    with the first `done` of them."""

    recorded, done = 0, 0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        Event.recorded += 1
        self.place = Event.recorded

    def query(self) -> bool:
        return self.place <= Event.done

    def elapsed_time(self, end: Any) -> float:
        return 1000.0 * (end.place - self.place)


@pytest.fixture
def event(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Event]]:
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(Event, "recorded", 0)
    monkeypatch.setattr(Event, "done", 0)
    yield Event


def test_a_gpu_is_not_waited_for_and_its_seconds_are_counted_when_it_is_done(
    event: type[Event],
) -> None:
    watch = Stopwatch(COUNTER, torch.device("cuda"))

    def measure() -> None:
        with watch.measure(pieces=2, method="a"):
            pass

    measure()
    measure()
    assert _counted() == 0, "nothing has ended on the device"
    event.done = 2
    measure()
    assert (_counted(), watch.seconds_per_piece) == (1.0, 0.5), "of the first alone"
    event.done = 6
    measure()
    assert _counted() == 3.0
