"""Two results of `compare.py`, load by load."""

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
"""Headings, and what of a row stands under them."""


def pairs(first: Rows, second: Rows) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Rows of the same load on the same server, in the first result's order.

    Open loads are parts of what each machine did at most, so the nth is compared with the nth.
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
    """What of the machine and the settings is not the same."""
    one, other = ({**result["machine"], **result["settings"]} for result in (first, second))
    names = dict.fromkeys([*one, *other])
    return [(k, one.get(k), other.get(k)) for k in names if one.get(k) != other.get(k)]
