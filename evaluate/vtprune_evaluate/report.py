"""Turn records into figures: accuracy with bootstrap intervals, by contender and kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from vtprune_evaluate.item import Dataset

__all__ = ["by_contender", "interval", "markdown", "paired_difference"]

_DRAWS, _LEVEL = 1000, 0.95

Records = Sequence[Mapping[str, Any]]


def _per_image(records: Records) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the sum of scores and the number of questions of every image, sorted by image."""
    sums: dict[str, list[float]] = {}
    for record in records:
        sums.setdefault(record["image"], []).append(record["score"])
    scores = [sums[image] for image in sorted(sums)]
    return np.array([sum(each) for each in scores]), np.array([len(each) for each in scores])


def _draws(count: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, count, (_DRAWS, count))


def _limits(values: np.ndarray[Any, Any]) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)


def interval(records: Records) -> tuple[float, float, float]:
    """Return the mean score in per cent and the ends of its 95 % interval, by a bootstrap over
    images."""
    sums, counts = _per_image(records)
    lots = _draws(len(sums))
    low, high = _limits(100 * sums[lots].sum(1) / counts[lots].sum(1))
    return 100 * float(sums.sum() / counts.sum()), low, high


def paired_difference(records: Records, baseline: Records) -> tuple[float, float, float]:
    """Return by how many points `records` are above `baseline` on the same questions, and the ends
    of the difference's 95 % interval, by a bootstrap over images paired between the two."""
    sums, counts = _per_image(records)
    other, _ = _per_image(baseline)
    lots = _draws(len(sums))
    low, high = _limits(100 * (sums - other)[lots].sum(1) / counts[lots].sum(1))
    return 100 * float((sums - other).sum() / counts.sum()), low, high


def by_contender(records: Iterable[Mapping[str, Any]]) -> dict[tuple[str, Fraction], Records]:
    """Group records by method and kept share, in order of first appearance."""
    found: dict[tuple[str, Fraction], list[Mapping[str, Any]]] = {}
    for record in records:
        found.setdefault((record["method"], Fraction(record["keep"])), []).append(record)
    return dict(found)


def _row(dataset: Dataset, records: Records, groups: list[str]) -> list[str]:
    mean, low, high = interval(records)
    cells = [f"{mean:.1f} ({low:.1f}-{high:.1f})"]
    for group in groups:
        mine = [record for record in records if record["group"] == group]
        cells.append(f"{interval(mine)[0]:.1f}" if mine else "")
    published = dataset.summarize(records)
    cells += [f"{value:.1f}" for name, value in published.items() if name != "accuracy"]
    return cells


def markdown(dataset: Dataset, records: Records) -> str:
    """Return a table with one row per contender: all questions, each kind, published figures."""
    groups = sorted({record["group"] for record in records} - {""})
    contenders = by_contender(records)
    published = [name for name in dataset.summarize(records) if name != "accuracy"]
    titles = ["method", "kept", "tokens", "questions", "all (95 %)", *groups, *published]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for (method, keep), mine in contenders.items():
        counts = [record["kept"] for record in mine if record["kept"] is not None]
        tokens = f"{sum(counts) / len(counts):.0f}" if counts else ""
        cells = [method, str(keep), tokens, str(len(mine)), *_row(dataset, mine, groups)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
