"""Log one line for every thousand requests with images, and warn when pruning costs more than it
saves.

The line is the difference of two sums over all processes of this server (`metrics.totals`), so it
is the same whichever API server writes it. The previous sum is kept in the metrics folder; the
first API server to notice that a thousand requests have passed writes the line. API servers check
only a few times per thousand requests, so a line may cover somewhat more; it says how many.

**What pruning costs** is the device time of selection. **What it saves** is the prefill of the
dropped tokens, an estimate (`worker/savings.py`). Not counted: decoding over a shorter context and
room in the KV cache, which pruning saves; prefix-cache misses under a method that reads the
question, and planning in the API server, which it costs.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from typing import Any

from vllm_pruner import envs
from vllm_pruner.telemetry import metrics
from vllm_pruner.telemetry.shared_state import shared_state

__all__ = ["Ledger"]

logger = logging.getLogger("vllm.vtprune")

_LOOKS = 10
"""How often an API server checks per line, if it gets all requests."""

_SUMMED = {
    "requests": metrics.REQUESTS,
    "images": metrics.IMAGES,
    "visual_tokens_original": metrics.ORIGINAL,
    "visual_tokens_kept": metrics.KEPT,
    "tower_seconds": metrics.TOWER_SECONDS,
    "selection_seconds": metrics.SELECTION_SECONDS,
    "prefill_seconds_saved": metrics.PREFILL_SECONDS_SAVED,
    "feature_cache_hits": metrics.FEATURE_HITS,
    "feature_cache_misses": metrics.FEATURE_MISSES,
    "refusals": metrics.REFUSALS,
}
"""The fields of a line, in order."""

_Totals = dict[tuple[str, str], float]


class Ledger:
    """Counts the requests of one API server and writes a line when one is due."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests = 0
        self._since = time.time()

    def note_request(self) -> None:
        """Count a request with images. Thread-safe."""
        if not (every := envs.log_every()):
            return
        with self._lock:
            self._requests += 1
            due = self._requests % max(1, every // _LOOKS) == 0
        if due:
            _settle(every, self._since)


def _settle(every: int, since: float) -> None:
    """Write a line if `every` requests have come since the last line of any process.

    Args:
        every: requests per line.
        since: the time from which the first line counts its seconds.
    """
    if (folder := envs.metrics_folder()) is None:
        return
    try:
        with shared_state(folder, "ledger") as last:
            now = metrics.totals()
            then = {(name, method): value for name, method, value in last.get("totals", [])}
            change = {key: value - then.get(key, 0.0) for key, value in now.items()}
            if _sum(change, metrics.REQUESTS) < every:
                return
            seconds = time.time() - last.get("time", since)
            logger.info("vtprune: %s", json.dumps(_line(change, seconds)))
            last["costly"] = _warn(change, every / _LOOKS, set(last.get("costly", [])))
            last["totals"] = [[*key, value] for key, value in now.items()]
            last["time"] = time.time()
    except OSError as error:  # the folder is gone: the server is shutting down
        logger.debug("vtprune: no line: %s", error)


def _sum(change: _Totals, metric: metrics.Metric, method: str | None = None) -> float:
    return sum(v for (n, m), v in change.items() if n == metric.name and method in (None, m))


def _line(change: _Totals, seconds: float) -> dict[str, Any]:
    """Return the fields of a line; seconds are rounded to milliseconds, and a request counts once
    for each method it used."""
    line: dict[str, Any] = {"seconds": round(seconds, 3)}
    for name, metric in _SUMMED.items():
        line[name] = round(_sum(change, metric), 3 if "seconds" in name else None)
    methods = {method for name, method in change if name == metrics.IMAGES.name}
    images = {method: round(_sum(change, metrics.IMAGES, method)) for method in sorted(methods)}
    return {**line, "images_by_method": {name: count for name, count in images.items() if count}}


def _warn(change: _Totals, least: float, costly: set[str]) -> list[str]:
    """Log each method that has begun, or ceased, to cost more than it saves.

    Args:
        change: the sums of this line.
        least: images below which a method is not judged: one compilation would dominate.
        costly: the methods that cost more than they saved as of the previous line.

    Returns:
        The same as of this line, sorted.
    """
    for method in sorted({method for _, method in change if method}):
        cost = _sum(change, metrics.SELECTION_SECONDS, method)
        saved = _sum(change, metrics.PREFILL_SECONDS_SAVED, method)
        if _sum(change, metrics.IMAGES, method) < least or not cost + saved:
            continue
        numbers = method, cost, saved
        if cost > saved and method not in costly:
            logger.warning(
                "vtprune: %s costs more than it saves: %.3f s of selection against about %.3f s of "
                "prefill; a higher rate saves more, rate 0 or another method costs less",
                *numbers,
            )
            costly.add(method)
        elif cost <= saved and method in costly:
            logger.info(
                "vtprune: %s saves more than it costs again: %.3f s of selection against about "
                "%.3f s of prefill",
                *numbers,
            )
            costly.remove(method)
    return sorted(costly)
