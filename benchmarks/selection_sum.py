"""Sum up what a whole selection launches and takes on an H200, by estimate, without a GPU.

    PYTHONPATH=environment .venv/bin/python benchmarks/selection_sum.py

One image of LLaVA-1.5, 64 of 576 tokens: importance, the method, the gather, as `vllm_pruner.prune`
calls them. Operators are counted as torch dispatches them (`launched`), each with the launches that
the table of operators in kernels/README.md has for it, and priced as that file says.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import torch
from _clip_tower import HEADS, PATCHES, WIDTH
from launched import Launched
from vtprune_kernels import cls_importance

import vllm_pruner

README = Path(__file__).parents[1] / "kernels" / "README.md"
KEEP = PATCHES // 9
LAUNCH = (2.0, 3.0)
"""Microseconds of a small operator in a graph: 1.5 to 2.5 for its launch, the rest for its work."""
PRICES = {
    "cls_importance": (10, 17),
    "cosine_gram": (10, 20),
    "scope: greedy_select": (50, 75),
    "vispruner: dedup, clusters": (104, 117),
    "vispruner: dedup, smooth": (86, 101),
}
"""Microseconds of the others, by kernels/README.md: importance measured, the others estimated."""


class Sum(NamedTuple):
    """Launches of a selection by operator, and the least and most microseconds."""

    launches: dict[str, int]
    least: float
    most: float


def main() -> None:
    """Print a row for each method and kind of picture."""
    print("| method | launches | of which | whole selection, us |\n|---|---|---|---|")
    for priced in [name for name in PRICES if ":" in name]:
        found = summed(priced)
        each = ", ".join(f"{number} {name}" for name, number in found.launches.items())
        total = sum(found.launches.values())
        print(f"| {priced} | {total} | {each} | {found.least:.0f} to {found.most:.0f} |")


def summed(priced: str) -> Sum:
    """Count and price the selection whose choice `PRICES` has under this name.

    Raises:
        SystemExit: torch is asked for something that is no operator of ours, which has no price.
    """
    method, choice = re.split(": |,", priced)[:2]
    launches: dict[str, int] = {}
    least = most = 0.0
    for name, calls in operators(method).items():
        if name not in _launches():
            raise SystemExit(f"{method} launches {name}, for which there is no price")
        launches[name] = calls * _launches()[name]
        small = (LAUNCH[0] * launches[name], LAUNCH[1] * launches[name])
        low, high = PRICES[priced] if name == choice else PRICES.get(name, small)
        least, most = least + low, most + high
    return Sum(launches, least, most)


def operators(method: str) -> dict[str, int]:
    """Return how often a selection calls each operator, in the order of the first calls."""
    query, key, rows = torch.randn(3, 1, 1 + PATCHES, WIDTH).unbind()
    with Launched({}) as launched:
        importance = cls_importance(query, key, HEADS, (WIDTH // HEADS) ** -0.5)
        vllm_pruner.prune(method, keep=KEEP, features=rows[:, 1:], importance=importance)
    return {name: number for (_, kind, name), number in launched.counts.items() if kind == "launch"}


def _launches() -> dict[str, int]:
    """Return the launches of each operator; the most, where the table has several numbers."""
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\|([^|]*\d[^|]*)\|", README.read_text(), re.MULTILINE)
    return {name: max(map(int, re.findall(r"\d+", cell))) for name, cell in rows}


if __name__ == "__main__":
    main()
