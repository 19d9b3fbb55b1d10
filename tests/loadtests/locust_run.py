"""A headless locust run of a scenario, in a process of its own: locust patches the standard library
for gevent as soon as it is imported, which pytest must not inherit."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOCUST = Path(sys.executable).with_name("locust")
SCENARIOS = Path(__file__).parents[2] / "loadtests" / "scenarios"

__all__ = ["LOCUST", "SCENARIOS", "LocustRun", "run"]


@dataclass(frozen=True)
class LocustRun:
    """What a run left behind."""

    exit_code: int
    log: str
    stats: dict[tuple[str, str], dict[str, Any]]
    """locust's statistics by request type and name."""

    answers: list[dict[str, Any]]
    """The lines of `--answers`."""


def command(scenario: str, url: str, *flags: str) -> list[str]:
    """The command line of a headless run."""
    file = SCENARIOS / f"{scenario}.py"
    return [str(LOCUST), "-f", str(file), "--headless", "--only-summary", "-H", url, *flags]


def run(folder: Path, scenario: str, url: str, *flags: str) -> LocustRun:
    """Run a scenario against a server; `folder` takes the files."""
    answers, stats = folder / f"{scenario}.jsonl", folder / f"{scenario}.json"
    answers.unlink(missing_ok=True)  # locust would append
    files = ["--answers", str(answers), "--json-file", str(stats.with_suffix(""))]
    done = subprocess.run(
        command(scenario, url, *files, *flags), capture_output=True, text=True, timeout=300
    )
    rows = json.loads(stats.read_text())
    lines = answers.read_text().splitlines() if answers.exists() else []
    return LocustRun(
        done.returncode,
        done.stderr,
        {(row["method"], row["name"]): row for row in rows},
        [json.loads(line) for line in lines],
    )
