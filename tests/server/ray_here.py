"""Programs of Ray on this machine; tests of them are skipped where it is not installed.

Each starts a Ray of its own, whose processes descend from it and end with it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from vllm_process import environment

__all__ = ["NEEDS_RAY", "ROOT", "descendants", "running"]

ROOT = Path(__file__).parents[2]

NEEDS_RAY = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed; `make test-ray`"
)


_RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    # Beside other tests its processes starve at Ray's own niceness, and start late.
    "RAY_worker_niceness": "0",
}


@contextmanager
def running(log: Path, script: str, *arguments: str, **extra: str) -> Iterator[psutil.Popen]:
    """Run an example with a log; in the end it is told to stop, and then it is killed with all that
    it started."""
    path = os.pathsep.join(filter(None, sys.path))  # Ray's processes find what pytest does
    command = [sys.executable, str(ROOT / "examples" / script), *arguments]
    with log.open("ab") as out, tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:
        # A short name: Ray's sockets are in it.
        own = {"PYTHONPATH": path, "RAY_TMPDIR": folder, **_RAY}
        process = psutil.Popen(
            command, cwd=ROOT, env=environment(**own, **extra), stdout=out, stderr=out
        )
        try:
            yield process
        finally:
            _end(process)


def descendants(process: psutil.Popen, title: str) -> list[psutil.Process]:
    """Return the processes below one whose title contains a text."""
    found = []
    for each in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if title in " ".join(each.cmdline()):
                found.append(each)
    return found


def _end(process: psutil.Popen) -> None:
    below = process.children(recursive=True) if process.is_running() else []
    with contextlib.suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
        process.send_signal(signal.SIGINT)
        process.wait(30)
    for each in [*below, process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    psutil.wait_procs(below, 10)
