"""The run on a GPU loses no more than what failed: one server, one number of clients, one line."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

with pytest.MonkeyPatch.context() as path:
    # Not for longer: transformers looks for a package `kernels`.
    path.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import _gpu_stages
    from _gpu_fleet import Fleet, Wanted, waves
    from _gpu_record import Record, evidence
    from _gpu_servers import server_groups
    from _gpu_stages import Load, serve_pair

LOAD = Load(clients=(1, 8, 32), requests=1, rounds=1, timed=1, unpruned=True)


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path, 60.0)


def _fleet(record: Record, *names: str) -> Fleet:
    """A fleet in which these servers are up."""
    made = Fleet(record, [], on_gpu=True)
    made.servers.update(dict.fromkeys(names))  # type: ignore[arg-type]
    return made


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], int]]:
    """The contenders that are asked at each number of clients; at 8 a request fails."""
    calls: list[tuple[list[str], int]] = []

    def measure(stage: str, some: Any, clients: int, *_: Any) -> int:
        calls.append(([each.name for each in some], clients))
        if clients == 8:
            raise OSError("connection reset")
        return 91

    monkeypatch.setattr(_gpu_stages, "_measure", measure)
    monkeypatch.setattr(_gpu_stages, "milliseconds_inside", lambda *_: {"tower_ms": 1.0})
    return calls


def test_what_is_up_is_measured_without_the_server_that_is_not(record: Record, asked: Any) -> None:
    names = ["qwen stock", "qwen vtprune", "qwen graphs"]
    fleet = _fleet(record, *names[:2])
    until = time.monotonic() + 60
    with pytest.raises(RuntimeError, match=r"not up: qwen graphs; at 8 clients OSError: conn"):
        serve_pair("qwen", fleet, names, LOAD, record, until)
    assert asked == [(names[:2], clients) for clients in (1, 8, 32)]
    assert [row["contender"] for row in record.rows if "inside" in row] == [
        *("qwen stock", "qwen stock", "qwen vtprune", "qwen vtprune")
    ]


@pytest.mark.parametrize("up", [["vtprune"], ["stock"], []])
def test_nothing_is_asked_without_a_pair(record: Record, asked: Any, up: list[str]) -> None:
    with pytest.raises(RuntimeError, match="not up"):
        serve_pair("llava", _fleet(record, *up), ["stock", "vtprune"], LOAD, record, 1e9)
    assert not asked


def test_a_server_that_fails_is_not_waited_for(record: Record) -> None:
    """There is no vLLM for a GPU here, nor such a checkpoint."""
    fleet = Fleet(record, [Wanted("demo", "no-such-model", ("--no-such-flag",))], on_gpu=True)
    fleet.begin()
    began = time.monotonic()
    fleet.wait_for("demo", began + 120)
    fleet.wait(began + 120)
    assert time.monotonic() - began < 119 and not fleet.servers
    assert "no-such-flag" in record.rows[-1]["failed"]
    fleet.stop()


@pytest.mark.parametrize("gb", [138.5, 140.2])
def test_what_no_card_has_run_comes_first(gb: float) -> None:
    """Of the memory of an H200, 139 to 140 GiB, 93 %."""
    groups = server_groups(on_gpu=True)
    first, second = (
        [[*groups][number] for number in wave] for wave in waves([*groups.values()], gb)
    )
    assert first == ["demo", "llava", "qwen"] and second == ["next", "apis"]


def test_what_vtprune_says_is_kept_whatever_vllm_says() -> None:
    bars = [f"Capturing CUDA graphs: {share}%|#| {share}/99" for share in range(99)]
    others = [f"CUDA graph {number}" for number in range(20)]
    own = "vtprune: for images the vision tower is served without CUDA graphs"
    said = evidence("\n".join(["\r".join(bars), *others, own]))["says"]
    assert said[0] == own and len(said) == 12
    assert not any("%|" in line for line in said)
