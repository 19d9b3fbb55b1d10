"""Describe the machine of a measurement, without which a figure means nothing."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

__all__ = ["commit", "describe"]


def describe() -> dict[str, str | int]:
    """Return date, commit, processor, cores and versions."""
    return {
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "cpu": _cpu(),
        "cores": os.cpu_count() or 0,
        "python": platform.python_version(),
        "torch": version("torch"),
        "vllm": version("vllm"),
    }


def commit() -> str:
    """Return the measured commit: from COMMIT, for a copy without a repository, else from git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        found = "unknown"
    return os.environ.get("COMMIT") or found


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
