"""Run one scenario against one server for some seconds, with locust in its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

__all__ = ["Load", "answers"]

SCENARIOS = Path(__file__).parent / "scenarios"


@dataclass(frozen=True)
class Load:
    """A load; equal loads send equal requests, as far as the server keeps up."""

    scenario: str
    users: int = 1
    arrivals: float = 0.0
    """Visits per second that each user starts; 0 is closed load."""

    seconds: float = 10.0
    """Seconds after which users stop asking; requests then in flight are awaited."""

    seed: int = 0
    output_tokens: int = 16
    pictures: str = "photos"
    model: str = "demo"
    body: str = "{}"
    """JSON: more keys of each request."""

    @property
    def kind(self) -> str:
        """`open` or `closed`."""
        return "open" if self.arrivals else "closed"

    @property
    def level(self) -> float:
        """Users of a closed load, arrivals per second of an open one."""
        return self.users * self.arrivals or self.users

    @property
    def run_time(self) -> int:
        """The seconds as an integer, as locust takes them."""
        return max(1, round(self.seconds))

    def flags(self) -> list[str]:
        """locust's flags."""
        values = {
            "--users": self.users,
            "--spawn-rate": self.users,
            "--run-time": self.run_time,
            "--arrivals": self.arrivals,
            "--seed": self.seed,
            "--output-tokens": self.output_tokens,
            "--pictures": self.pictures,
            "--model": self.model,
            "--body": self.body,
            "--stop-timeout": 600,
            "--loglevel": "WARNING",
        }
        return [str(part) for item in values.items() for part in item]


def answers(load: Load, url: str) -> list[dict[str, Any]]:
    """Put a load on a server and return a record per request, as `--answers` writes them.

    On a busy machine the time may be over before locust's users have asked anything; then it is
    extended. A request that fails has a record, too.

    Raises:
        RuntimeError: nothing was asked even in 16 times the seconds; with locust's output.
    """
    for factor in (1, 4):
        if found := _asked(replace(load, seconds=factor * load.seconds), url)[0]:
            return found
    found, printed = _asked(replace(load, seconds=16 * load.seconds), url)
    if not found:
        raise RuntimeError(f"{load.scenario} asked nothing:\n{printed[-3000:]}")
    return found


def _asked(load: Load, url: str) -> tuple[list[dict[str, Any]], str]:
    """Run locust once; return the records and what it printed."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "answers.jsonl"
        scenario = SCENARIOS / f"{load.scenario}.py"
        locust = [sys.executable, "-m", "locust", "-f", str(scenario), "--headless"]
        command = [*locust, "--only-summary", "--host", url, "--answers", str(file), *load.flags()]
        # Every request resolves its host; gevent's threaded resolver can lose a request.
        environment = {**os.environ, "GEVENT_RESOLVER": "block"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        lines = file.read_text().splitlines() if file.exists() else []
        return [json.loads(line) for line in lines], done.stderr
