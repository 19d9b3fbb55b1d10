"""Time code on a GPU, measure its bandwidth and FLOP rate, and append rows to a CSV file."""

from __future__ import annotations

import csv
import datetime
import importlib.metadata
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _machine import commit

__all__ = ["append", "bandwidth", "describe_gpu", "flops", "graph_of", "time_interleaved"]

_CALLS = 10
"""Calls between two events, because one call of about 10 us is too close to their resolution."""


def describe_gpu() -> dict[str, str]:
    """Return GPU, driver, versions, commit and date."""
    driver = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return {
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "gpu": torch.cuda.get_device_name(),
        "driver": driver,
        "cuda": torch.version.cuda or "",
        "torch": torch.__version__,
        "triton": importlib.metadata.version("triton"),
    }


def _output(*command: str) -> str:
    """Return the first line that a command prints, or "unknown"."""
    try:
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return text.splitlines()[0].strip()


def time_interleaved(
    contenders: dict[str, Callable[[], Any]],
    rounds: int,
    device: torch.device,
    warm_up: int = 2,
) -> dict[str, tuple[float, float, float]]:
    """Return median, 20 % and 80 % quantile in microseconds per call; the contenders take turns."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + warm_up):
        for name, call in contenders.items():
            microseconds = _time(call, device)
            if turn >= warm_up:  # the first ones compile
                times[name].append(microseconds)
    found = {}
    for name, all_of_it in times.items():
        cuts = statistics.quantiles(all_of_it, n=5, method="inclusive")
        found[name] = (statistics.median(all_of_it), cuts[0], cuts[3])
    return found


def _time(call: Callable[[], Any], device: torch.device) -> float:
    if device.type == "cpu":
        start = time.perf_counter()
        call()
        return 1e6 * (time.perf_counter() - start)
    start_event, end_event = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start_event.record()
    for _ in range(_CALLS):
        call()
    end_event.record()
    torch.cuda.synchronize()
    return 1e3 * start_event.elapsed_time(end_event) / _CALLS


def graph_of(call: Callable[[], Any]) -> Callable[[], Any]:
    """Return `call` captured as a CUDA graph, to time it without the host."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()

    def replay() -> Any:
        graph.replay()
        return result

    return replay


def bandwidth(device: torch.device) -> float:
    """Return the bytes per second, read plus written, of a copy of 1 GiB."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    micro = time_interleaved({"copy": lambda: target.copy_(source)}, 7, device)["copy"][0]
    return 2 * source.numel() / (1e-6 * micro)


def flops(device: torch.device) -> float:
    """Return the floating-point operations per second of a bfloat16 GEMM of size 8192."""
    a = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    micro = time_interleaved({"gemm": lambda: a @ a}, 7, device)["gemm"][0]
    return 2 * 8192**3 / (1e-6 * micro)


def append(path: Path, rows: list[dict[str, Any]]) -> None:
    """Append rows to a CSV file, with a header if it is new."""
    path.parent.mkdir(exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)
