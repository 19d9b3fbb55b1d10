"""The client of `launcher.py`: a forked server as `subprocess.Popen` would show it."""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import launcher

__all__ = ["ForkedProcess", "lent", "run"]

_LENT = "FORKED_CONTROL"
"""Names the descriptor of a launcher that another process has started."""


@cache
def _control() -> socket.socket:
    """The socket of this pytest process's launcher, which starts with the first server; in a script
    that a test runs, of the test's."""
    if descriptor := os.environ.get(_LENT):
        return socket.socket(fileno=int(descriptor))
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with there:
        process = subprocess.Popen(
            [sys.executable, launcher.__file__, str(there.fileno())],
            env={**os.environ, **launcher.ENVIRONMENT},
            pass_fds=[there.fileno()],
            stdin=subprocess.DEVNULL,
        )

    def end() -> None:
        here.close()
        process.wait()

    atexit.register(end)
    return here


def lent(environment: Mapping[str, str]) -> dict[str, Any]:
    """Options of `subprocess.run` by which a script's servers are forked from this launcher too."""
    descriptor = _control().fileno()
    return {"env": {**environment, _LENT: str(descriptor)}, "pass_fds": [descriptor]}


class ForkedProcess:
    """A `vllm` command or a script in a session of its own, forked from the launcher."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], stdout: int, stderr: int
    ) -> None:
        self.returncode: int | None = None
        if "--api-server-count" in command:
            # vLLM makes such a folder too, but after prometheus_client, here imported, has looked.
            self._metrics = tempfile.TemporaryDirectory(prefix="metrics-")
            environment = {"PROMETHEUS_MULTIPROC_DIR": self._metrics.name, **environment}
        self._answers, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        request = json.dumps({"command": list(command), "environment": dict(environment)})
        with there:
            descriptors = [stdout, stderr, there.fileno()]
            socket.send_fds(_control(), [request.encode()], descriptors)
        self.pid = int(self._answers.recv(64))

    def poll(self) -> int | None:
        """Return the exit code, or None while the process runs."""
        if self.returncode is None and select.select([self._answers], [], [], 0)[0]:
            self.returncode = int(self._answers.recv(64))
            self._answers.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; raises `subprocess.TimeoutExpired` as Popen does."""
        if self.returncode is None and not select.select([self._answers], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("vllm", timeout or 0)
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


def run(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run a `vllm` command, or the script that `command` begins with, to its end.

    What it prints passes through files in `folder`.
    """
    stdout, stderr = folder / "stdout", folder / "stderr"
    with stdout.open("wb") as out, stderr.open("wb") as err:
        process = ForkedProcess(command, environment, out.fileno(), err.fileno())
    code = process.wait(timeout)
    return subprocess.CompletedProcess(list(command), code, stdout.read_text(), stderr.read_text())
