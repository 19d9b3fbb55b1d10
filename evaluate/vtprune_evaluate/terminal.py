"""What a person at a terminal sees of an evaluation: progress, lines of text, the plot's file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["plot", "progress", "say"]

_WIDTH = 24


def progress(label: str) -> Callable[[int, int], None]:
    """Return what draws a bar on standard error, with the time left, as answers come."""
    began, before = time.monotonic(), -1

    def show(done: int, total: int) -> None:
        nonlocal before
        before = done - 1 if before < 0 else before  # answers of an earlier run took no time
        seconds = (time.monotonic() - began) / (done - before) * (total - done)
        bar = "#" * (_WIDTH * done // total)
        left = f"{seconds // 60:.0f}:{seconds % 60:02.0f} left" if done < total else "done      "
        end = "\n" if done == total else ""
        sys.stderr.write(f"\r{label} [{bar:{_WIDTH}}] {done}/{total}, {left}{end}")
        sys.stderr.flush()

    return show


def say(text: str) -> None:
    """Write a line to standard output."""
    sys.stdout.write(text + "\n")


def plot(records: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Draw accuracy against kept share; say so if matplotlib is missing."""
    try:
        from vtprune_evaluate.plot import draw_plot

        draw_plot(records, file)
    except ImportError:
        say("no plot: matplotlib is missing; `pip install vtprune[evaluate]` brings it")
