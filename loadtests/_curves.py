"""The report's curves, as SVG for embedding in an HTML page, without external resources."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

__all__ = ["gain", "goodput", "throughput_against_latency", "ttft_percentiles"]

Rows = Sequence[dict[str, Any]]

COLOURS = {"stock": "#8a8f98", "vtprune": "#d1495b"}
STYLE = {
    "svg.fonttype": "none",  # text stays text, in the page's font
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e8eb",
    "axes.edgecolor": "#b6bac0",
    "legend.frameon": False,
}


def throughput_against_latency(rows: Rows) -> str:
    """Closed load: requests per second against the median time of an answer, a point per level."""
    figure, axes = _axes("requests per second", "median time of an answer, s")
    for name, mine in _by_contender(rows):
        x, y = _column(mine, "requests_per_s"), _column(mine, "total_p50_s")
        axes.plot(x, y, "o-", color=COLOURS[name], label=name)
        for row in mine:
            axes.annotate(
                f"{row['level']:g}",
                (row["requests_per_s"], row["total_p50_s"]),
                xytext=(5, 4),
                textcoords="offset points",
                fontsize=8,
                color=COLOURS[name],
            )
    axes.set_xlim(left=0)
    _logarithmic(axes, "y")
    return _svg(figure, "Requests per second against latency, for stock and vtprune")


def ttft_percentiles(rows: Rows) -> str:
    """Closed load: p50, p95 and p99 of the time to the first token against users."""
    figure, axes = _axes("users", "time to first token, s")
    for name, mine in _by_contender(rows):
        for percent, line in ((50, "o-"), (95, "s--"), (99, "^:")):
            y = _column(mine, f"ttft_p{percent}_s")
            label = f"{name} p{percent}"
            axes.plot(_column(mine, "level"), y, line, color=COLOURS[name], label=label, ms=4)
    _levels(axes, rows)
    _logarithmic(axes, "y")
    return _svg(figure, "Percentiles of the time to first token against users")


def gain(rows: Rows) -> str:
    """Closed load: requests per second of vtprune over stock's, against users."""
    figure, axes = _axes("users", "requests per second, vtprune / stock")
    by = {(row["contender"], row["level"]): row["requests_per_s"] for row in rows}
    counted = [{row["level"] for row in mine} for _, mine in _by_contender(rows)]
    levels = sorted(set.intersection(*counted))
    ratios = [by["vtprune", level] / by["stock", level] for level in levels]
    axes.plot(levels, ratios, "o-", color=COLOURS["vtprune"], label="vtprune")
    axes.axhline(1, color=COLOURS["stock"], label="stock")
    axes.set_ylim(0, 1.15 * max([1.0, *ratios]))
    _levels(axes, rows)
    return _svg(figure, "Ratio of requests per second, vtprune over stock, against users")


def goodput(rows: Rows) -> str:
    """Open load: good answers per second against requests that arrived per second."""
    figure, axes = _axes("arrivals per second", "good answers per second")
    for name, mine in _by_contender(rows):
        x, y = _column(mine, "arrivals_per_s"), _column(mine, "goodput_per_s")
        axes.plot(x, y, "o-", color=COLOURS[name], label=name)
    most = max(row["arrivals_per_s"] for row in rows)
    axes.plot([0, most], [0, most], ":", color="#b6bac0", label="all of them")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    return _svg(figure, "Goodput against arrival rate, for stock and vtprune")


def _axes(x: str, y: str) -> tuple[Figure, Axes]:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 3.7), layout="constrained")
        axes = figure.add_subplot()
        axes.set_xlabel(x)
        axes.set_ylabel(y)
    return figure, axes


def _by_contender(rows: Rows) -> list[tuple[str, Rows]]:
    """Return rows by contender, with ascending levels, without rows of fewer than two answers,
    which have no rate."""
    answered = [row for row in rows if row["requests"] - row["failed"] > 1]
    ordered = sorted(answered, key=lambda row: float(row["level"]))
    return [(name, [row for row in ordered if row["contender"] == name]) for name in COLOURS]


def _column(rows: Rows, key: str) -> list[float]:
    return [row[key] for row in rows]


def _logarithmic(axes: Axes, which: str) -> None:
    axis = axes.yaxis if which == "y" else axes.xaxis
    axes.set(**{f"{which}scale": "log"})
    axis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _levels(axes: Axes, rows: Rows) -> None:
    """Put ticks at the measured levels, on a logarithmic axis."""
    axes.set_xscale("log", base=2)
    levels = sorted({row["level"] for row in rows})
    axes.set_xticks(levels, [f"{level:g}" for level in levels])
    axes.xaxis.set_minor_formatter(NullFormatter())


def _svg(figure: Figure, description: str) -> str:
    """Return the figure as SVG without XML header and metadata, so that its only URLs are
    namespaces."""
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    file = io.StringIO()
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": description}):
        figure.axes[0].legend()
        figure.savefig(file, format="svg", metadata=nothing)
    svg = file.getvalue()
    start = svg.index("<svg") + len("<svg")
    return f'<svg role="img" aria-label="{description}"' + svg[start:]
