"""Summarise answers into the figures of one load."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

__all__ = ["percentile", "summary"]


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Return a percentile with linear interpolation; None without values."""
    ordered = sorted(values)
    if not ordered:
        return None
    place = percent / 100 * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def summary(
    answers: Sequence[dict[str, Any]], slo_ttft: float, window: float = 0.0
) -> dict[str, Any]:
    """Return the figures of one load on one server.

    Rates are over the time from the first request to the last answer, or `window` if that is
    longer, so that idle time counts and goodput never exceeds the arrival rate. For a saturated
    server, the time until the last requests are answered counts, too.

    Args:
        answers: records of `--answers`, at least one.
        slo_ttft: seconds within which a good answer begins.
        window: seconds in which requests of an open load could arrive; 0 for a closed one.
    """
    whole = [answer for answer in answers if "error" not in answer]
    begun = min(answer["sent"] for answer in answers)
    ended = max(answer["sent"] + answer["total"] for answer in answers)
    seconds = max(window, ended - begun)
    first = [answer["ttft"] for answer in whole]
    gaps = [gap for answer in whole for gap in answer["gaps"]]
    total = [answer["total"] for answer in whole]
    errors = [answer["error"] for answer in answers if "error" in answer]
    return {
        "requests": len(answers),
        "failed": len(errors),
        "errors": sorted(set(errors))[:5],
        "seconds": seconds,
        "arrivals_per_s": len(answers) / window if window else None,
        "requests_per_s": len(whole) / seconds,
        "output_tokens_per_s": sum(answer["completion_tokens"] for answer in whole) / seconds,
        "goodput_per_s": sum(value <= slo_ttft for value in first) / seconds,
        "prompt_tokens": _mean([answer["prompt_tokens"] for answer in whole]),
        **{f"ttft_p{p}_s": percentile(first, p) for p in (50, 95, 99)},
        **{f"itl_p{p}_s": percentile(gaps, p) for p in (50, 95, 99)},
        **{f"total_p{p}_s": percentile(total, p) for p in (50, 95, 99)},
    }


def _mean(values: Sequence[float]) -> float | None:
    return statistics.mean(values) if values else None
