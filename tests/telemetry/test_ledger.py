"""The line for every thousand requests, and the warning, from counts of several processes."""

from __future__ import annotations

import json
import logging
import multiprocessing
from pathlib import Path

import pytest

from vllm_pruner.telemetry import metrics
from vllm_pruner.telemetry.ledger import Ledger


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VLLM_VTPRUNE_METRICS_DIR", str(tmp_path))
    monkeypatch.setenv("VLLM_VTPRUNE_LOG_EVERY", "20")
    return tmp_path


def _serve(ledger: Ledger, times: int, cost: float = 1e-3, saved: float = 1e-2) -> None:
    for _ in range(times):
        metrics.REQUESTS.add(method="a")
        metrics.IMAGES.add(2, method="a")
        metrics.ORIGINAL.add(2 * 576, method="a")
        metrics.KEPT.add(2 * 64, method="a")
        metrics.TOWER_SECONDS.add(0.5)
        metrics.SELECTION_SECONDS.add(cost, method="a")
        metrics.PREFILL_SECONDS_SAVED.add(saved, method="a")
        ledger.note_request()


def _lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    texts = [record.getMessage() for record in caplog.records]
    return [json.loads(t.removeprefix("vtprune: ")) for t in texts if t.startswith("vtprune: {")]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "vllm.vtprune")
    return caplog


def test_every_twenty_requests_are_one_line(log: pytest.LogCaptureFixture) -> None:
    ledger = Ledger()
    _serve(ledger, 59)
    first, second = _lines(log)
    assert first["requests"] == second["requests"] == 20
    assert (
        second.items()
        >= {
            "images": 40,
            "visual_tokens_original": 40 * 576,
            "visual_tokens_kept": 40 * 64,
            "tower_seconds": 10.0,
            "selection_seconds": 0.02,
            "prefill_seconds_saved": 0.2,
            "refusals": 0,
            "images_by_method": {"a": 40},
        }.items()
    )
    _serve(ledger, 1)
    assert len(_lines(log)) == 3


def _child(times: int, path: str) -> None:
    logging.getLogger("vllm.vtprune").addHandler(logging.FileHandler(path))
    logging.getLogger("vllm.vtprune").setLevel(logging.INFO)
    _serve(Ledger(), times)


def test_several_processes_write_each_request_once(folder: Path) -> None:
    context = multiprocessing.get_context("fork")
    paths = [folder / f"{number}.log" for number in range(3)]
    children = [context.Process(target=_child, args=(100, str(path))) for path in paths]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    lines = [line for path in paths for line in path.read_text().splitlines()]
    requests = [json.loads(line.removeprefix("vtprune: "))["requests"] for line in lines]
    assert 280 < sum(requests) <= 300
    assert all(20 <= number < 30 for number in requests)


def test_a_turned_balance_is_said_once(log: pytest.LogCaptureFixture) -> None:
    ledger = Ledger()
    for cost in (1e-3, 2e-2, 2e-2, 2e-2, 1e-3, 1e-3, 2e-2):
        _serve(ledger, 20, cost=cost)
    said = [r for r in log.records if "saves" in r.getMessage()]
    assert [record.levelname for record in said] == ["WARNING", "INFO", "WARNING"]
    assert "a costs more than it saves: 0.400 s of selection against about 0.200 s" in (
        said[0].getMessage()
    )


def test_a_method_of_few_images_is_not_judged(log: pytest.LogCaptureFixture) -> None:
    metrics.IMAGES.add(method="b")
    metrics.SELECTION_SECONDS.add(3.0, method="b")  # the first call compiles
    _serve(Ledger(), 20)
    assert not [r for r in log.records if r.levelno == logging.WARNING]


def test_0_writes_nothing(log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_VTPRUNE_LOG_EVERY", "0")
    _serve(Ledger(), 40)
    assert _lines(log) == []


def test_a_bad_number_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm_pruner import envs

    monkeypatch.setenv("VLLM_VTPRUNE_LOG_EVERY", "many")
    with pytest.raises(ValueError, match="VLLM_VTPRUNE_LOG_EVERY is 'many'; allowed: a number"):
        envs.log_every()


def test_a_torn_file_costs_no_request(log: pytest.LogCaptureFixture, folder: Path) -> None:
    """A process that is killed while it writes leaves half a line of JSON."""
    ledger = Ledger()
    _serve(ledger, 20)
    file = folder / "vtprune-ledger.json"
    file.write_text(file.read_text()[:-9])
    _serve(ledger, 40)
    lines = _lines(log)
    assert len(lines) >= 2
    assert sum(int(str(line["requests"])) for line in lines[1:]) >= 40
