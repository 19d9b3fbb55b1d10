"""Compare two results of `compare.py`, load by load."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["FIGURES", "differences", "pairs"]

Rows = Sequence[dict[str, Any]]

FIGURES = {
    "req/s": "requests_per_s",
    "good/s": "goodput_per_s",
    "TTFT p50": "ttft_p50_s",
    "TTFT p95": "ttft_p95_s",
    "total p50": "total_p50_s",
}
"""The columns: heading, and key in a row."""


def pairs(first: Rows, second: Rows) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return pairs of rows of the same load on the same server, in the first result's order.

    The rate of an open load depends on its machine's throughput, so the nth is paired with the nth.
    """
    others = dict(_keyed(second))
    return [(row, others[key]) for key, row in _keyed(first) if key in others]


def _keyed(rows: Rows) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    opened: dict[tuple[Any, ...], int] = {}
    for row in rows:
        kind = (row["contender"], row["scenario"], row["load"])
        opened[kind] = opened.get(kind, 0) + 1
        yield (*kind, opened[kind] if row["load"] == "open" else row["level"]), row


def differences(first: dict[str, Any], second: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return the properties of machine and settings that differ, with both values."""
    one, other = ({**result["machine"], **result["settings"]} for result in (first, second))
    names = dict.fromkeys([*one, *other])
    return [(k, one.get(k), other.get(k)) for k in names if one.get(k) != other.get(k)]
