"""The result of `compare.py` as one HTML page that loads nothing from anywhere.

python loadtests/report.py report.json > report.html
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jinja2
from _curves import gain, goodput, throughput_against_latency, ttft_percentiles

__all__ = ["render"]

TEMPLATE = Path(__file__).with_name("report.html.jinja")
SWEPT = "single_image"


def render(result: dict[str, Any]) -> str:
    """Return the page for a result as `compare.py` writes it."""
    rows = [_reckoned(row, result["settings"]["seconds"]) for row in result["rows"]]
    closed = [r for r in rows if r["scenario"] == SWEPT and r["load"] == "closed"]
    opened = [r for r in rows if r["scenario"] == SWEPT and r["load"] == "open"]
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    curves = [
        ("Requests per second, vtprune over stock", gain(closed)),
        ("Throughput against latency; the numbers are users", throughput_against_latency(closed)),
        ("Time to the first token", ttft_percentiles(closed)),
    ]
    if opened:
        curves.append(("Goodput against arrivals, open load", goodput(opened)))
    page = environment.from_string(TEMPLATE.read_text())
    settings = {k: v for k, v in result["settings"].items() if v is not None}
    return page.render(result=result, settings=settings, curves=curves, pairs=_pairs(rows))


def _reckoned(row: dict[str, Any], window: float) -> dict[str, Any]:
    """The row, with the rates of an open load over all the seconds in which requests could
    arrive; results from before 2026-11-29 have them from the first request to the last answer."""
    if row["load"] != "open" or "arrivals_per_s" in row:
        return row
    seconds = max(row["seconds"], window)
    rates = ("requests_per_s", "output_tokens_per_s", "goodput_per_s")
    shared = {name: row[name] * row["seconds"] / seconds for name in rates}
    return {**row, **shared, "seconds": seconds, "arrivals_per_s": row["requests"] / window}


def _pairs(rows: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Stock's and vtprune's row of each load."""
    by: dict[Any, dict[str, Any]] = {}
    for row in rows:
        by.setdefault((row["scenario"], row["load"], row["level"]), {})[row["contender"]] = row
    return [(pair["stock"], pair["vtprune"]) for pair in by.values()]


if __name__ == "__main__":
    sys.stdout.write(render(json.loads(Path(sys.argv[1]).read_text())))
