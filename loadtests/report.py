"""Render one or two results of `compare.py` as one HTML page without external resources.

python loadtests/report.py report.json > report.html
python loadtests/report.py before.json after.json > both.html
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jinja2
from _curves import gain, goodput, throughput_against_latency, ttft_percentiles
from _side_by_side import FIGURES, differences, pairs

__all__ = ["render", "render_both"]

TEMPLATE = "report.html.jinja"
BOTH = "side_by_side.html.jinja"
SWEPT = "single_image"


def render(result: dict[str, Any]) -> str:
    """Return the page for a result of `compare.py`."""
    rows = [_reckoned(row, result["settings"]["seconds"]) for row in result["rows"]]
    closed = [r for r in rows if r["scenario"] == SWEPT and r["load"] == "closed"]
    opened = [r for r in rows if r["scenario"] == SWEPT and r["load"] == "open"]
    curves = [
        ("Requests per second, vtprune over stock", gain(closed)),
        ("Throughput against latency; the numbers are users", throughput_against_latency(closed)),
        ("Time to the first token", ttft_percentiles(closed)),
    ]
    if opened:
        curves.append(("Goodput against arrivals, open load", goodput(opened)))
    settings = {k: v for k, v in result["settings"].items() if v is not None}
    return _template(TEMPLATE).render(
        result=result, settings=settings, curves=curves, pairs=_pairs(rows)
    )


def render_both(names: tuple[str, str], first: dict[str, Any], second: dict[str, Any]) -> str:
    """Return the page that compares two results, under the given names."""
    one, other = (
        [_reckoned(row, result["settings"]["seconds"]) for row in result["rows"]]
        for result in (first, second)
    )
    return _template(BOTH).render(
        names=names,
        figures=FIGURES,
        pairs=pairs(one, other),
        differences=differences(first, second),
    )


def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(Path(__file__).with_name(name).read_text())


def _reckoned(row: dict[str, Any], window: float) -> dict[str, Any]:
    """Return a row whose rates, for an open load, are over all the seconds in which requests could
    arrive. In results before 2026-11-29 they are from the first request to the last answer."""
    if row["load"] != "open" or "arrivals_per_s" in row:
        return row
    seconds = max(row["seconds"], window)
    rates = ("requests_per_s", "output_tokens_per_s", "goodput_per_s")
    shared = {name: row[name] * row["seconds"] / seconds for name in rates}
    return {**row, **shared, "seconds": seconds, "arrivals_per_s": row["requests"] / window}


def _pairs(rows: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return stock's and vtprune's row of each load."""
    by: dict[Any, dict[str, Any]] = {}
    for row in rows:
        by.setdefault((row["scenario"], row["load"], row["level"]), {})[row["contender"]] = row
    return [(pair["stock"], pair["vtprune"]) for pair in by.values()]


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("report.py takes one JSON of compare.py, or two")
    files = [Path(name) for name in sys.argv[1:]]
    results = [json.loads(file.read_text()) for file in files]
    named = (str(files[0]), str(files[-1]))
    sys.stdout.write(render(*results) if len(files) == 1 else render_both(named, *results))
