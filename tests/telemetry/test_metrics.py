"""Counts of several processes, added up by whoever is asked."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from counted import COUNTER, observe, serve, work
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from vllm_pruner.telemetry import metric, metrics


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CollectorRegistry]:
    """What /metrics would show with several API servers, where vLLM says which folder it reads."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.delenv("VLLM_VTPRUNE_METRICS_DIR", raising=False)
    metrics.set_model("")  # a model that another test configured in this process
    metrics.publish()
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    yield registry
    monkeypatch.delenv("VLLM_VTPRUNE_METRICS_DIR")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_are_added_up(shown: CollectorRegistry, method: str) -> None:
    work(3)  # before the fork, which inherits the open file
    context = multiprocessing.get_context(method)
    children = [context.Process(target=work, args=(times,)) for times in (10, 20)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    work(4)
    assert shown.get_sample_value("vtprune_test_total", {"method": "a"}) == 2 * 37
    assert shown.get_sample_value("vtprune_level") == 4 + 10 + 20


def test_a_process_that_is_just_beginning_breaks_no_count(
    shown: CollectorRegistry, tmp_path: Path
) -> None:
    """Its file is there before anything is in it."""
    work(3)
    before = metrics.totals()
    assert before
    (tmp_path / "counter_vtprune-99999999.db").touch()
    assert metrics.totals() == before


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads take turns after microseconds: between a count's reading and its writing, too."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("restless")
def test_threads_lose_no_count(shown: CollectorRegistry) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: work(500), range(8)))
    assert shown.get_sample_value("vtprune_test_total", {"method": "a"}) == 8 * 1000


def test_a_process_that_is_forked_while_a_thread_counts_counts_too(
    shown: CollectorRegistry,
) -> None:
    child = multiprocessing.get_context("fork").Process(target=work, args=(3,))
    with metric._lock:
        child.start()
    child.join(60)
    child.kill()
    assert child.exitcode == 0, "it waits for a thread that it does not have"
    assert shown.get_sample_value("vtprune_test_total", {"method": "a"}) == 2 * 3


def test_zero_makes_a_counter_visible(shown: CollectorRegistry) -> None:
    COUNTER.add(0, method="b")
    assert shown.get_sample_value("vtprune_test_total", {"method": "b"}) == 0


def test_without_a_folder_nothing_is_counted_and_nothing_breaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where a path without a folder would lead
    monkeypatch.delenv("VLLM_VTPRUNE_METRICS_DIR", raising=False)
    COUNTER.add(method="a")
    monkeypatch.setenv("VLLM_VTPRUNE_METRICS_DIR", str(tmp_path / "on-another-machine"))
    COUNTER.add(method="a")
    assert os.listdir(tmp_path) == []


def test_a_histogram_has_each_range_and_adds_up_processes(shown: CollectorRegistry) -> None:
    observe(0, 1, 1.5)
    child = multiprocessing.get_context("fork").Process(target=observe, args=(2, 7))
    child.start()
    child.join()
    seen = {
        bound: shown.get_sample_value("vtprune_sizes_bucket", {"method": "a", "le": bound})
        for bound in ("1.0", "2.0", "4.0", "+Inf")
    }
    assert seen == {"1.0": 2, "2.0": 4, "4.0": 4, "+Inf": 5}
    assert shown.get_sample_value("vtprune_sizes_sum", {"method": "a"}) == 11.5
    assert shown.get_sample_value("vtprune_sizes_count", {"method": "a"}) == 5


def test_a_process_says_which_model_it_serves(shown: CollectorRegistry) -> None:
    child = multiprocessing.get_context("fork").Process(target=serve, args=("llava",))
    child.start()
    child.join()
    work(1)
    counted = {"method": "a", "model_name": "llava"}
    assert shown.get_sample_value("vtprune_test_total", counted) == 2
    assert shown.get_sample_value("vtprune_sizes_bucket", {**counted, "le": "2.0"}) == 1
    assert shown.get_sample_value("vtprune_test_total", {"method": "a"}) == 2
    (key,) = {key for key in metrics.totals() if key[0] == "vtprune_test"}
    assert metrics.totals()[key] == 4, "sums are over models"
