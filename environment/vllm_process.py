"""A real `vllm serve` of a checkpoint in `.cache/models` on this machine, for tests and benchmarks:
a context manager that starts it and ends it with all its processes."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

__all__ = ["MODELS", "VllmProcess", "command", "environment"]

MODELS = Path(__file__).parents[1] / ".cache" / "models"

_SEGMENT = re.compile(r"/dev/shm/(?:psm|vllm)_\S+")
"""Shared memory as Python's `multiprocessing` and vLLM name it."""

_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_SERVER_DEV_MODE": "1",  # opens /collective_rpc and /reset_prefix_cache
}


def command(model: str, arguments: Sequence[str]) -> list[str]:
    """Return the command line that serves a checkpoint as the model `demo`; a checkpoint without
    weights gets random ones."""
    beside = Path(sys.executable).with_name("vllm")
    vllm = beside if beside.exists() else (shutil.which("vllm") or beside)
    folder = MODELS / model
    common = ["--served-model-name", "demo", "--max-model-len", "4096"]
    if not any(folder.rglob("*.safetensors")):
        common += ["--load-format", "dummy"]
    return [str(vllm), "serve", str(folder), *common, *arguments]


def environment(**extra: str) -> dict[str, str]:
    """Return the environment variables for vLLM."""
    return {**os.environ, **_ENVIRONMENT, **extra}


class VllmProcess:
    """A server with a command line, a log and a port."""

    def __init__(self, log: Path, model: str, *arguments: str, **env: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        port = self.url.rpartition(":")[2]
        self._log = log
        self._command = command(model, ["--port", port, *arguments])
        self._environment = environment(**env)

    def start(self) -> None:
        """Start the server and wait until it is ready.

        Raises:
            RuntimeError: vLLM ended, or was not ready in nine minutes; with the end of its log.
        """
        with self._log.open("wb") as log:
            self._process = self._launch(log.fileno())
        try:
            self._wait(deadline=time.monotonic() + 540)
        except BaseException:
            self.stop()
            raise

    def _launch(self, log: int) -> subprocess.Popen[bytes]:
        """Run the command in a session of its own, printing to the descriptor `log`."""
        return subprocess.Popen(
            self._command,
            env=self._environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _wait(self, deadline: float) -> None:
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=5).close()
                return
            except (OSError, urllib.error.URLError):
                time.sleep(0.2)
        raise RuntimeError(f"vLLM is not up; the end of its log:\n{self.log[-6000:]}")

    def stop(self) -> None:
        """End the server, its engine and its workers."""
        memory = _shared_memory(self._process.pid)
        self._process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for segment in memory:
            segment.unlink(missing_ok=True)

    @property
    def pid(self) -> int:
        """The server's first process; engine and workers descend from it."""
        return self._process.pid

    @property
    def log(self) -> str:
        """Everything that the server has printed so far."""
        return self._log.read_text(errors="replace")

    def __enter__(self) -> VllmProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _shared_memory(group: int) -> set[Path]:
    """Return the segments of shared memory that the processes of a group have mapped.

    Who would give them back is killed with the others: a run of the tests left 0.7 GB behind.
    """
    found: set[Path] = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            if os.getpgid(int(process.name)) == group:
                maps = (process / "maps").read_text()
                found |= {Path(each) for each in _SEGMENT.findall(maps)}
    return found
