"""The record of a run on a GPU: each row is written to a file at once."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["Record", "evidence"]

_JIT = re.compile(r" during inference: ([\w.]+)")
_KV = re.compile(r"KV cache size: ([\d,]+) tokens")
_SAYS = re.compile(
    r"vtprune: .*|model runner.*|attention backend.*|.*CUDA graphs?.*", re.IGNORECASE
)


class Record:
    """The rows of a run, and the time left for its stages."""

    def __init__(self, folder: Path, seconds: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._start = time.monotonic()
        self._end = self._start + seconds
        self._lock = threading.Lock()
        self.outcomes: list[dict[str, Any]] = []
        self.rows: list[dict[str, Any]] = []

    @property
    def left(self) -> float:
        """Seconds until the run must end."""
        return self._end - time.monotonic()

    def row(self, stage: str, **values: Any) -> None:
        """Write a row at once."""
        at = round(time.monotonic() - self._start)
        row = {"stage": stage, "at_s": at, **values}
        line = json.dumps(row)
        with self._lock, (self.folder / "rows.jsonl").open("a") as file:
            file.write(line + "\n")
            self.rows.append(row)
        print(line, flush=True)

    def stage(self, name: str, limit: float, work: Callable[[float], None]) -> None:
        """Run one stage within its limit and the time left; a failure does not stop the run.

        Args:
            name: the stage's name in its rows.
            limit: most seconds that it may take.
            work: called with the value of `time.monotonic()` by which it must end. If it does not,
                it is abandoned in its thread.
        """
        seconds = min(limit, self.left)
        began, outcome = time.monotonic(), {"stage": name, "ended": "no time was left"}
        if seconds > 1:
            failures: list[BaseException] = []

            def guarded() -> None:
                try:
                    work(began + seconds)
                except BaseException as failure:
                    failures.append(failure)

            thread = threading.Thread(target=guarded, daemon=True)
            thread.start()
            thread.join(seconds + 1)
            outcome["ended"] = "past its limit" if thread.is_alive() else "as it should"
            if failures:
                outcome["ended"] = f"{type(failures[0]).__name__}: {failures[0]}"[-2000:]
        outcome["seconds"] = str(round(time.monotonic() - began, 1))
        self.outcomes.append(outcome)
        self.row(name, **{key: value for key, value in outcome.items() if key != "stage"})


def evidence(log: str) -> dict[str, Any]:
    """Return facts from a server's log: tokens of its KV cache, kernels compiled during requests,
    number of errors, and notable lines."""
    lines = [line.partition("] ")[2] or line for line in log.splitlines()]
    says = [line[:200] for line in dict.fromkeys(lines) if _SAYS.search(line)]
    says = [line for line in says if "%|" not in line]  # a bar, many times over
    says.sort(key=lambda line: "vtprune" not in line)  # what we say fits in any case
    sizes = [int(found.replace(",", "")) for found in _KV.findall(log)]
    return {
        "kv_tokens": sizes[-1] if sizes else None,
        "compiled_in_requests": sorted(set(_JIT.findall(log))),
        "errors": sum(" ERROR " in line or line.startswith("ERROR ") for line in log.splitlines()),
        "says": says[:12],
    }
