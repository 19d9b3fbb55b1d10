"""Stock vLLM and vtprune run at once and take turns at the same requests, in short blocks.

The order is drawn for each pair of blocks; the other server is idle and has stopped spinning. Two
neighbouring blocks see the same machine, so slow disturbances cancel in their ratio. Each block
measures requests per second and the CPU time of the server's API process, which hardly depends on
the machine's other load.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from _chat import closed_load
from vllm_process import VllmProcess

__all__ = ["CONTENDERS", "block", "ratio_row", "start"]

CONTENDERS: dict[str, list[str]] = {"stock": [], "vtprune": ["--plugin", "vtprune"]}
RESAMPLES = 10_000


def start(
    stack: ExitStack, logs: Path, model: str, first: str, *flags: str, ours: Sequence[str] = ()
) -> dict[str, VllmProcess]:
    """Start both servers, `first` before the other, and end them with the stack.

    Args:
        stack: the stack that stops them.
        logs: the folder for their logs.
        model: a folder of `.cache/models`.
        first: the one of `CONTENDERS` to start first.
        flags: vLLM's flags for both.
        ours: more flags for vtprune.
    """
    servers = {}
    for name in sorted(CONTENDERS, key=lambda each: each != first):
        print(f"starting {name} ...", flush=True)
        env = {"VLLM_PLUGINS": "none"} if name == "stock" else {}
        own = [*CONTENDERS[name], *(() if name == "stock" else ours)]
        process = VllmProcess(logs / f"{name}.log", model, *flags, *own, **env)
        servers[name] = stack.enter_context(process)
    return servers


def block(server: VllmProcess, bodies: Sequence[dict[str, Any]], clients: int) -> dict[str, float]:
    """Ask a block of requests; return requests per second, and CPU milliseconds of the API process
    per request."""
    before = _processor_seconds(server.pid)
    _, seconds = closed_load(server.url, bodies, clients)
    used = _processor_seconds(server.pid) - before
    return {
        "requests_per_s": len(bodies) / seconds,
        "api_cpu_ms": 1000 * used / len(bodies),
    }


def _processor_seconds(pid: int) -> float:
    """Return the CPU seconds of a process and its threads, without its children, such as the
    engine."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def ratio_row(
    measure: str, pairs: Sequence[dict[str, dict[str, float]]], seed: int
) -> dict[str, Any]:
    """Return both servers' figures and their ratio: for requests per second, medians over pairs;
    for CPU time, which the kernel counts in hundredths of a second, means and the ratio of sums."""
    values = np.array([[pair[name][measure] for name in CONTENDERS] for pair in pairs])

    def ratio(sample: np.ndarray) -> float:
        if measure == "api_cpu_ms":
            stock, vtprune = sample.sum(axis=0)
            return float(vtprune / stock)
        return float(np.median(sample[:, 1] / sample[:, 0]))

    draw = np.random.default_rng(seed)
    resampled = [
        ratio(values[draw.integers(len(values), size=len(values))]) for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(resampled, [0.025, 0.975])
    center = values.mean(axis=0) if measure == "api_cpu_ms" else np.median(values, axis=0)
    return {
        "measure": measure,
        **{name: round(float(value), 4) for name, value in zip(CONTENDERS, center, strict=True)},
        "ratio": round(ratio(values), 5),
        "ratio_95": [round(float(low), 5), round(float(high), 5)],
    }
