"""When the server's own rate moves: with a load told by vLLM's gauges, and by shadows."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector

from vllm_pruner.prompt.agreement import Agreement, Answer
from vllm_pruner.prompt.live_rate import live_rate, rate_for
from vllm_pruner.prompt.load_steps import LoadSteps
from vllm_pruner.prompt.shadow_rule import WINDOW, ShadowRule, is_below
from vllm_pruner.settings.again import UNPRUNED, Again
from vllm_pruner.settings.load import Load
from vllm_pruner.settings.server import ServerConfig
from vllm_pruner.telemetry.engine_load import EngineLoad, engine_load

CALM, BUSY = EngineLoad(0, 0.1, 1), EngineLoad(4, 0.1, 1)
FULL, HALF = EngineLoad(0, 0.95, 1), EngineLoad(2, 0.8, 1)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where vLLM writes with several API servers, and so do we."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.setenv("VLLM_VTPRUNE_METRICS_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def steps() -> LoadSteps:
    return LoadSteps(Load(waiting=4, seconds=10), 3)


@pytest.mark.parametrize("load", [BUSY, FULL], ids=str)
def test_load_brings_the_rate_up_step_by_step_to_the_last(
    steps: LoadSteps, load: EngineLoad
) -> None:
    seen = [steps.step(load, now) for now in (0.0, 0.1, 0.4, 0.6, 1.1, 9.0)]
    assert seen == [1, 1, 1, 2, 3, 3]


def test_what_is_neither_changes_nothing_and_is_no_calm(steps: LoadSteps) -> None:
    steps.step(BUSY, 0.0)
    seen = [steps.step(HALF, 5.0), steps.step(CALM, 6.0), steps.step(HALF, 15.0)]
    assert seen + [steps.step(CALM, 15.9), steps.step(CALM, 25.8)] == [1] * 5
    assert steps.step(CALM, 26.0) == 0


def test_each_step_down_takes_its_own_calm_and_silence_is_calm(steps: LoadSteps) -> None:
    for now in (0.0, 1.0, 2.0):
        steps.step(BUSY, now)
    assert [steps.step(CALM, now) for now in (3.0, 12.0, 13.0, 22.9, 23.0)] == [3, 3, 2, 2, 1]
    for now in (24.0, 25.0):
        steps.step(BUSY, now)
    assert [steps.step(CALM, now) for now in (26.0, 300.0)] == [3, 0]


def test_several_engines_have_more_that_wait() -> None:
    steps = LoadSteps(Load(waiting=4), 3)
    assert steps.step(EngineLoad(7, 0.1, 2), 0.0) == 0
    assert steps.step(EngineLoad(8, 0.1, 2), 1.0) == 1


def _told(folder: Path, process: int, time: float, waiting: float, used: float) -> None:
    """Write what vLLM's API server of that number does when an engine tells it."""
    file = MmapedDict(str(folder / f"gauge_mostrecent_{process}.db"))
    for name, value in (("num_requests_waiting", waiting), ("kv_cache_usage_perc", used)):
        key = mmap_key(f"vllm:{name}", f"vllm:{name}", ["engine"], ["0"], "help")
        file.write_value(key, value, time)
    file.close()


def test_every_api_server_knows_what_any_was_told_last(folder: Path) -> None:
    assert engine_load() is None
    (folder / "gauge_mostrecent_9.db").touch()  # of a process that just begins
    _told(folder, 1, 100.0, waiting=7, used=0.5)
    _told(folder, 2, 101.0, waiting=3, used=0.25)
    assert engine_load() == EngineLoad(3, 0.25, 1)


def _rate_shown() -> set[float]:
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    found = [metric for metric in registry.collect() if metric.name == "vtprune_server_rate"]
    return {sample.value for metric in found for sample in metric.samples}


def test_a_busy_engine_moves_what_the_next_request_gets(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = ServerConfig.parse({"rate": 0.25, "rate_under_load": 0.95, "load": {"waiting": 3}})
    assert rate_for(config, None) == 0.25
    _told(folder, 1, 100.0, waiting=3, used=0.5)
    live = live_rate(config)
    assert live is not None
    live._looked = float("-inf")
    with caplog.at_level("INFO", "vllm.vtprune"):
        moved = rate_for(config, {"method": "attention"})
    assert moved is not None and 0.25 < moved < 0.95
    assert "in place of 0.2500: 3 requests wait, 50 % of the KV cache in use" in caplog.text
    assert _rate_shown() == {moved}
    assert rate_for(config, {"rate": 0.25}) is None and rate_for(config, Again(UNPRUNED)) is None
    assert rate_for(config, Again(None, 0.33)) == 0.33, "what is compared had another one"


def test_a_rate_that_stays_is_not_looked_at() -> None:
    assert live_rate(ServerConfig.parse({"rate": 0.5, "shadow": 0.5})) is None


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Rules that read what others wrote each time."""
    monkeypatch.setattr("vllm_pruner.prompt.shadow_rule._READ", 0.0)
    yield


def _agreement(common: int) -> Agreement:
    """Of two answers of ten tokens."""
    one = tuple(range(10))
    return Agreement(Answer("", one, {}), Answer("", (*one[:common], *[99] * (10 - common)), {}))


def _note(rule: ShadowRule, rate: float, commons: list[int]) -> None:
    for common in commons:
        rule.note(rate, _agreement(common))


@pytest.mark.usefixtures("quick")
def test_disagreement_lowers_the_rate_for_all_processes(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rule, other = ShadowRule(0.9, 0.0), ShadowRule(0.9, 0.0)
    half = WINDOW // 2
    _note(rule, 0.8, [7, 9] * (half // 2))
    _note(other, 0.8, [7, 9] * (half // 2))
    assert (rule.most(), other.most()) == (None, None)
    _note(other, 0.8, [7, 9] * (WINDOW - 2 * (half // 2)))
    assert (rule.most(), other.most()) == (0.7, 0.7)
    assert "share 80 % of their tokens" in caplog.text and "at most 0.7000" in caplog.text
    _note(rule, 0.8, [0] * 2 * WINDOW)  # asked before the rate went down
    assert rule.most() == 0.7
    _note(rule, 0.7, [10] * 2 * WINDOW)
    assert rule.most() == 0.7
    _note(rule, 0.7, [0] * WINDOW)
    assert rule.most() == pytest.approx(0.55)


@pytest.mark.usefixtures("quick")
def test_agreement_that_is_low_by_chance_changes_nothing(folder: Path) -> None:
    rule, chance = ShadowRule(0.9, 0.0), random.Random(0)
    _note(rule, 0.8, [10 * (chance.random() < 0.88) for _ in range(WINDOW)])
    assert rule.most() is None


@pytest.mark.usefixtures("quick")
def test_a_rate_never_goes_below_the_operators_least(folder: Path) -> None:
    rule = ShadowRule(0.9, 0.75)
    _note(rule, 0.8, [0] * WINDOW)
    assert rule.most() == 0.75
    _note(rule, 0.75, [0] * WINDOW)
    assert rule.most() == 0.75
    assert "windows" in json.loads((folder / "vtprune-shadow-rule.json").read_text())


def test_thirty_nine_of_fifty_are_surely_below_nine_tenths_and_forty_may_be_chance() -> None:
    assert is_below(50, 39, 39, 0.9)
    assert not is_below(50, 40, 40, 0.9)


@pytest.mark.parametrize("true_mean", [0.9, 0.95])
def test_few_windows_of_agreement_at_the_bound_are_taken_for_less(true_mean: float) -> None:
    """Of answers that agree wholly or not at all, as those of a word do."""
    chance, below = random.Random(1), 0
    for _ in range(400):
        total = sum(chance.random() < true_mean for _ in range(WINDOW))
        below += is_below(WINDOW, total, total, 0.9)
    assert below / 400 < 0.05
