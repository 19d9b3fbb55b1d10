"""The load tests' client against a real server, counted against the server's own metrics."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from pathlib import Path

import pytest
from locust_run import LocustRun, command, run
from vllm_server import Server

pytestmark = pytest.mark.server

COUNTERS = {
    "requests": "vllm:request_success_total",
    "prompt": "vllm:prompt_tokens_total",
    "output": "vllm:generation_tokens_total",
    "ttft": "vllm:time_to_first_token_seconds_sum",
    "total": "vllm:e2e_request_latency_seconds_sum",
}

NAMES = {
    "single_image": {"SingleImage"},
    "several_images": {"SeveralImages"},
    "multi_turn": {"MultiTurn: first turn", "MultiTurn: later turn"},
    "many_questions": {"ManyQuestions"},
    "mixed_traffic": {"MixedTraffic: picture", "MixedTraffic: text"},
}


def counters(server: Server) -> dict[str, float]:
    return {name: server.metric(series) for name, series in COUNTERS.items()}


def counted(server: Server, folder: Path, scenario: str, *flags: str) -> LocustRun:
    """Run a scenario and hold what the client reports against what the server counted."""
    before = counters(server)
    done = run(folder, scenario, server.url, "--output-tokens", "8", *flags)
    assert done.exit_code == 0, done.log
    now = counters(server)
    server_saw = {name: now[name] - before[name] for name in now}
    answers = done.answers
    assert server_saw["requests"] == len(answers) > 0
    assert server_saw["prompt"] == sum(answer["prompt_tokens"] for answer in answers)
    assert server_saw["output"] == sum(answer["completion_tokens"] for answer in answers)
    # The client waits longer than the server works, and the first text comes before the end.
    first, total = (sum(answer[key] for answer in answers) for key in ("ttft", "total"))
    assert server_saw["ttft"] < first < total
    assert server_saw["total"] < total
    return done


@pytest.mark.parametrize("scenario", NAMES)
def test_a_scenario_counts_what_the_server_counts(pruned, scenario, tmp_path) -> None:
    done = counted(pruned, tmp_path, scenario, "-u", "4", "-r", "4", "-t", "4s")
    for name in NAMES[scenario]:
        requests = {kind: done.stats[kind, name]["num_requests"] for kind in ("CHAT", "TTFT")}
        assert requests["CHAT"] == requests["TTFT"] == done.stats["TOKENS/S", name]["num_requests"]
    assert {answer["name"] for answer in done.answers} == NAMES[scenario]
    gaps = sum(len(answer["gaps"]) for answer in done.answers)
    assert gaps == sum(
        row["num_requests"] for (kind, _), row in done.stats.items() if kind == "ITL"
    )


def test_good_answers_are_those_within_the_objectives(pruned, tmp_path) -> None:
    done = counted(pruned, tmp_path, "single_image", "-u", "2", "-t", "3s", "--slo-ttft", "0.001")
    assert ("GOOD", "SingleImage") not in done.stats
    done = counted(pruned, tmp_path, "single_image", "-u", "2", "-t", "3s", "--slo-ttft", "60000")
    good, all_of_them = (done.stats[kind, "SingleImage"] for kind in ("GOOD", "CHAT"))
    assert good["response_times"] == all_of_them["response_times"]


def test_open_load_sends_without_waiting_for_answers(pruned, tmp_path) -> None:
    """One user, more than one request in flight: closed load could not do that."""
    flags = ["-u", "1", "-t", "4s", "--arrivals", "20", "--pictures", "synthetic"]
    done = counted(pruned, tmp_path, "single_image", *flags)
    begun = sorted(answer["sent"] for answer in done.answers)
    ended = sorted(answer["sent"] + answer["total"] for answer in done.answers)
    assert any(begun[i + 1] < ended[i] for i in range(len(begun) - 1))
    assert 40 <= len(begun) <= 120, "20 arrivals a second for 4 seconds, give or take"


def test_the_ramp_ends_at_saturation(pruned, tmp_path) -> None:
    """Users double until requests per second stop rising; on few cores that is soon."""
    done = counted(pruned, tmp_path, "ramp", "--step", "3", "--pictures", "synthetic")
    steps = [int(users) for users in re.findall(r"ramp: (\d+) users, ", done.log)]
    assert steps == [2**power for power in range(len(steps))]
    assert re.search(r"ramp: saturated at (\d+) users", done.log)


def test_equal_seeds_ask_equal_questions(pruned, tmp_path) -> None:
    """Equal lengths one by one, and the second run finds the first one's full blocks in the prefix
    cache: another picture in any place would leave it nothing."""
    flags = ["-u", "1", "-t", "3s", "--seed", "7"]
    first = counted(pruned, tmp_path, "several_images", *flags).answers
    hits = pruned.metric("vllm:prefix_cache_hits_total")
    second = counted(pruned, tmp_path, "several_images", *flags).answers
    pairs = list(zip(first, second, strict=False))
    assert all(a["prompt_tokens"] == b["prompt_tokens"] for a, b in pairs)
    hits = pruned.metric("vllm:prefix_cache_hits_total") - hits
    assert hits > 0.5 * sum(a["prompt_tokens"] for a, _ in pairs)


def test_one_master_and_two_workers(pruned, tmp_path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    before = counters(pruned)
    scenario = command("single_image", pruned.url)
    workers = [
        subprocess.Popen([*scenario, "--worker", "--master-port", port], stderr=subprocess.DEVNULL)
        for _ in range(2)
    ]
    files = ["--answers", str(tmp_path / "answers"), "--json-file", str(tmp_path / "stats")]
    flags = ["--expect-workers", "2", "--master-bind-port", port, "-u", "4", "-r", "4", "-t", "4s"]
    subprocess.run([*scenario, "--master", *flags, *files], check=True, timeout=120)
    assert [worker.wait(60) for worker in workers] == [0, 0]
    answers = [(tmp_path / f"answers.{worker}").read_text().splitlines() for worker in range(2)]
    assert all(answers), "both workers asked"
    rows = {row["method"]: row for row in json.loads((tmp_path / "stats.json").read_text())}
    asked = sum(map(len, answers))
    # locust's master waits half a second for its workers' last reports, and may miss them.
    assert 0 < rows["CHAT"]["num_requests"] <= asked
    assert counters(pruned)["requests"] - before["requests"] == asked
