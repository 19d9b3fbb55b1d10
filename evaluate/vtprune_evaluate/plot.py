"""Plot accuracy against kept share, one line per method, with 95 % bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vtprune_evaluate.contender import AS_IS, UNPRUNED
from vtprune_evaluate.report import by_contender, interval

__all__ = ["draw_plot"]


def _panel(axes: Any, title: str, records: Sequence[Mapping[str, Any]]) -> None:
    lines: dict[str, list[tuple[float, float, float, float]]] = {}
    for (method, keep), mine in by_contender(records).items():
        mean, low, high = interval(mine)
        if method in (UNPRUNED, AS_IS):
            axes.axhline(mean, color="black", linestyle=":", linewidth=1, label=method)
        else:
            lines.setdefault(method, []).append((float(keep), mean, low, high))
    for i, (method, points) in enumerate(lines.items()):
        share, middle, lower, upper = zip(*sorted(points), strict=True)
        style = {"marker": "os^vDPX*<>"[i % 10], "color": f"C{i % 10}", "markersize": 4}
        axes.plot(share, middle, label=method, linestyle="-" if i < 10 else "--", **style)
        axes.fill_between(share, lower, upper, color=style["color"], alpha=0.12, linewidth=0)
    shares = sorted({share for points in lines.values() for share, *_ in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(shares, [f"1/{1 / share:g}" for share in shares])
    axes.minorticks_off()
    axes.set_title(title)
    axes.set_xlabel("kept share of the visual tokens")
    axes.grid(alpha=0.3)


def draw_plot(records: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Draw one panel for all questions and one for each kind.

    Raises:
        ImportError: matplotlib is missing; `pip install vtprune[evaluate]` installs it.
    """
    from matplotlib.figure import Figure

    groups = sorted({record["group"] for record in records} - {""})
    groups = groups if 1 < len(groups) <= 8 else []
    count = 1 + len(groups)
    columns = min(count, 3)
    rows = -(-count // columns)
    figure = Figure(figsize=(4.6 * columns, 3.6 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True).flatten()
    _panel(panels[0], "all questions", records)
    for axes, group in zip(panels[1:], groups, strict=False):
        _panel(axes, group, [record for record in records if record["group"] == group])
    for axes in panels[count:]:
        axes.set_axis_off()
    panels[0].set_ylabel("accuracy, %")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, fontsize="small")
    figure.savefig(file, dpi=110)
