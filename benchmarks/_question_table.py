"""The rows of `questions.py` as a table, beside stock and the method that reads no question."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["table"]

_HEADER = (
    "| workload | contender | prompt | req/s | x stock | x vispruner | TTFT p50 | x stock "
    "| prefix hits | tower runs | tower | selection |"
)

Rows = dict[tuple[str, str], dict[str, Any]]
"""By workload and contender."""


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table, and below it what the feature cache gives in each workload."""
    by: Rows = {(row["workload"], row["contender"]): row for row in rows}
    note = "Tower and selection: milliseconds of the device per request; stock's are not measured."
    lines = ["", _HEADER, "|---" * (_HEADER.count("|") - 1) + "|"]
    lines += [_line(row, by) for row in rows]
    return "\n".join([*lines, "", note, *_gains(by)])


def _line(row: dict[str, Any], by: Rows) -> str:
    stock, vispruner = (by[row["workload"], name] for name in ("stock", "vispruner"))
    rate, first = row["requests_per_s"], row["ttft_p50_s"]
    return (
        f"| {row['workload']} | {row['contender']} | {row['prompt_tokens']} | {rate:.2f} "
        f"| {rate / stock['requests_per_s']:.2f} | {rate / vispruner['requests_per_s']:.2f} "
        f"| {first:.3f} s | {first / stock['ttft_p50_s']:.2f} | {row['prefix_hit_share']:.0%} "
        f"| {row['feature_misses']:.0f} of {row['requests']} | {row['tower_ms']:.0f} ms "
        f"| {row['selection_ms']:.1f} ms |"
    )


def _gains(by: Rows) -> Iterator[str]:
    for workload in dict.fromkeys(workload for workload, _ in by):
        on, off = (by[workload, name] for name in ("adafv", "adafv, no feature cache"))
        gain = on["requests_per_s"] / off["requests_per_s"]
        yield (
            f"{workload}: the feature cache gives x {gain:.2f}; without it the tower takes "
            f"{off['tower_share']:.0%} of the time"
        )
