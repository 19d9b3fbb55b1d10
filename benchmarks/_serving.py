"""Contenders of a serving benchmark: they take turns at equally many requests within every round,
so that disturbances of the machine affect all of them alike."""

from __future__ import annotations

import json
import os
import random
import statistics
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _chat import Timing, closed_load, text_body
from vllm_process import VllmProcess

__all__ = ["Contender", "compare", "milliseconds_inside", "print_table", "search_path", "words_for"]


@dataclass(frozen=True)
class Contender:
    """A server, and the requests that it gets."""

    name: str
    server: VllmProcess
    bodies: Callable[[int], list[dict[str, Any]]]
    """`bodies(count)`: returns that many distinct requests."""


def search_path() -> str:
    """Return this process's PYTHONPATH extended so that a server finds `worker_timer`."""
    inherited = [path for path in [os.environ.get("PYTHONPATH")] if path]
    return os.pathsep.join([str(Path(__file__).parent), *inherited])


def compare(
    contenders: Sequence[Contender], concurrency: int, requests: int, rounds: int
) -> Iterator[dict[str, Any]]:
    """Yield one row per contender: `requests` from each of `concurrency` clients in each round."""
    timings: dict[str, list[Timing]] = {each.name: [] for each in contenders}
    rates: dict[str, list[float]] = {each.name: [] for each in contenders}
    for round_ in range(rounds + 1):
        for each in contenders:
            bodies = each.bodies(concurrency * (requests if round_ else 1))
            answered, seconds = closed_load(each.server.url, bodies, concurrency)
            if round_:  # the first one warms up
                timings[each.name] += answered
                rates[each.name].append(len(answered) / seconds)
    for name, answered in timings.items():
        row = _row(name, concurrency, answered, rates[name])
        print(json.dumps(row), flush=True)
        yield row


def _row(name: str, concurrency: int, timings: list[Timing], rates: list[float]) -> dict[str, Any]:
    first = [timing.first_token for timing in timings]
    return {
        "contender": name,
        "concurrency": concurrency,
        "requests": len(timings),
        "prompt_tokens": round(statistics.mean(timing.prompt_tokens for timing in timings)),
        "requests_per_s": round(statistics.median(rates), 3),
        "ttft_p50_s": round(float(np.percentile(first, 50)), 4),
        "ttft_p95_s": round(float(np.percentile(first, 95)), 4),
    }


def milliseconds_inside(
    server: VllmProcess, bodies: Sequence[dict[str, Any]], concurrency: int
) -> dict[str, float]:
    """Return milliseconds per image in each part of a server started with `worker_timer`."""
    _rpc(server, "start_timer")
    closed_load(server.url, bodies, concurrency)
    timed = _rpc(server, "read_timer")[0]
    return {f"{name}_ms": 1000 * seconds / len(bodies) for name, seconds in timed.items()}


def _rpc(server: VllmProcess, method: str) -> list[dict[str, float]]:
    request = urllib.request.Request(
        f"{server.url}/collective_rpc",
        json.dumps({"method": method}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        results: list[dict[str, float]] = json.load(response)["results"]
    return results


def words_for(url: str, prompt: int, output_tokens: int, choose: random.Random) -> int:
    """Return how many random digits make a text prompt of `prompt` tokens."""
    lengths = [
        closed_load(url, [text_body(words, output_tokens, choose)], 1)[0][0].prompt_tokens
        for words in (10, 20)
    ]
    per_word = (lengths[1] - lengths[0]) / 10
    return max(1, round(10 + (prompt - lengths[0]) / per_word))


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Print the rows relative to stock, as a Markdown table."""
    print("\n| clients | contender | prompt | req/s | x stock | TTFT p50 | x stock | TTFT p95 |")
    print("|---|---|---|---|---|---|---|---|")
    by = {(row["concurrency"], row["contender"]): row for row in rows}
    for row in rows:
        stock = by[row["concurrency"], "stock"]
        faster = row["requests_per_s"] / stock["requests_per_s"]
        sooner = row["ttft_p50_s"] / stock["ttft_p50_s"]
        print(
            f"| {row['concurrency']} | {row['contender']} | {row['prompt_tokens']} "
            f"| {row['requests_per_s']:.2f} | {faster:.2f} "
            f"| {row['ttft_p50_s']:.3f} s | {sooner:.2f} | {row['ttft_p95_s']:.3f} s |"
        )
