"""Render a run on a GPU as Markdown: the outcome of each stage, and servers compared with stock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["table"]

Row = dict[str, Any]


def table(outcomes: Sequence[Row], rows: Sequence[Row]) -> str:
    """Return the page that is stored next to the rows."""
    checks = [row for row in rows if row["stage"] == "operators" and "agrees" in row]
    agree = sum(row["agrees"] for row in checks)
    parts = [
        "# A run on a GPU",
        "\n".join(_machine(rows)),
        "\n".join(_stages(outcomes)),
        f"Operators: {agree} of {len(checks)} agree with their references.",
        "\n".join(_served([row for row in rows if "requests_per_s" in row])),
        "\n".join(_rest(rows)),
    ]
    return "\n\n".join(parts) + "\n"


def _machine(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        if row["stage"] == "environment" and "date" in row:
            left_out = ("stage", "at_s")
            yield ", ".join(f"{key} {value}" for key, value in row.items() if key not in left_out)


def _stages(outcomes: Sequence[Row]) -> Iterator[str]:
    yield "| stage | seconds | ended |"
    yield "|---|---|---|"
    for each in outcomes:
        ended = each["ended"].replace("\n", " ").replace("|", "/")[-160:]
        yield f"| {each['stage']} | {each['seconds']} | {ended} |"


def _served(rows: Sequence[Row]) -> Iterator[str]:
    """Yield a row per contender; host milliseconds are per request, by process."""
    yield "| | clients | prompt | KV tokens | req/s | × stock | TTFT p50 | × stock | host ms |"
    yield "|---|---|---|---|---|---|---|---|---|"
    stocks = {
        (row["stage"], row["concurrency"]): row
        for row in rows
        if row["contender"].endswith("stock")
    }
    for row in rows:
        stock = stocks[row["stage"], row["concurrency"]]
        host = ", ".join(f"{part} {ms}" for part, ms in row["host_ms_a_request"].items())
        yield (
            f"| {row['stage']}: {row['contender'].split()[-1]} | {row['concurrency']} "
            f"| {row['prompt_tokens']} | {row['kv_tokens']} | {row['requests_per_s']:.2f} "
            f"| {row['requests_per_s'] / stock['requests_per_s']:.2f} "
            f"| {1000 * row['ttft_p50_s']:.0f} ms | {row['ttft_p50_s'] / stock['ttft_p50_s']:.2f} "
            f"| {host} |"
        )


def _rest(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        if "inside" in row:
            yield f"- {row['contender']}, {row['concurrency']} clients, an image: {row['inside']}"
        if "equal" in row:
            yield f"- demo, {row['method']}: {row['equal']} of {row['answers']} as on a CPU"
        if row["stage"] == "logs":
            kernels = row["compiled_in_requests"]
            yield f"- {row['server']}: {len(kernels)} kernels compiled in requests {kernels}"
