"""Count the rounds that `greedy_select`'s lazy kernel needs for a cover, without a GPU.

    PYTHONPATH=environment .venv/bin/python benchmarks/greedy_rounds.py

What it does depends on how many scores are out of date (`greedy_cover_triton`), so its time depends
on the picture. Rows: `scope` and `triad` on the photographs of assets/photos, by the tower of
demo/llava; noise that is smooth over a picture and noise that is not, at the sizes of LLaVA-1.5 and
LLaVA-NeXT, with weights spread as attention is (log-normal) and with equal ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import torch
from _demo_tower import DemoTower
from _machine import describe
from set_quality import PHOTOS, QUESTION, pictures
from vtprune_kernels import cosine_gram
from vtprune_kernels.greedy_cover_triton import PARTS

import vllm_pruner
from vllm_pruner.methods import scope, triad

SIZES = ((576, 64), (2880, 160), (2880, 320))
Case = tuple[str, str, torch.Tensor, torch.Tensor, int]
"""What, objective, similarities `[N, N]`, weights `[N]`, rows taken."""


def main() -> None:
    """Print a table of rounds for each row taken after the first."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--parts", type=int, default=PARTS, help="other than the kernel's")
    parts = arguments.parse_args().parts
    torch.manual_seed(0)
    torch.set_num_threads(1)  # a step is too short for two
    print(describe())
    found: dict[tuple[str, str, int, int], list[float]] = {}
    for what, objective, gram, weight, keep in [*photographs(), *noises()]:
        key = (what, objective, keep, len(gram))
        count = rounds(gram, weight, keep, objective, parts)
        found.setdefault(key, []).append(count / (keep - 1))
    print(
        "| rows | objective | kept | rounds each, mean | most of a picture |\n|---|---|---|---|---|"
    )
    for (what, objective, keep, total), each in found.items():
        mean = sum(each) / len(each)
        print(f"| {what} | {objective} | {keep} of {total} | {mean:.1f} | {max(each):.1f} |")


def photographs() -> Iterator[Case]:
    """Yield what `scope` and `triad` select from, at one ninth and one quarter."""
    inputs = DemoTower().see(list(pictures([PHOTOS])), QUESTION)
    for module in (scope, triad):
        name = module.__name__.rpartition(".")[2]
        for keep in (28, 64):
            with patch.object(module, "greedy_select", wraps=module.greedy_select) as selected:
                vllm_pruner.prune(name, keep=keep, **inputs)
            gram, _, objective, weight = selected.call_args.args[:4]
            for image in range(len(gram)):
                yield f"photographs, `{name}`", objective, gram[image], weight[image], keep


def noises() -> Iterator[Case]:
    """Yield noise, smooth and not, with unequal and equal weights."""
    for total, keep in SIZES:
        for kind, rows in (("smooth noise", smooth(total)), ("noise", torch.randn(total, 256))):
            gram = cosine_gram(rows[None])[0]
            for spread, weight in (
                ("log-normal weights", torch.randn(total).exp()),
                ("equal weights", torch.ones(total)),
            ):
                for objective in ("coverage", "demand"):
                    yield f"{kind}, {spread}", objective, gram, weight, keep


def smooth(total: int) -> torch.Tensor:
    """Rows `[total, 256]` that resemble their neighbours in a square picture, and all a little."""
    side = int(total**0.5) + 1
    noise = torch.randn(1, 256, side, side)
    for _ in range(3):
        noise = torch.nn.functional.avg_pool2d(noise, 3, 1, 1)
    rows = torch.nn.functional.normalize(noise[0].flatten(1).T[:total], dim=1)
    return rows + (0.7 * torch.randn(total, 256) + torch.randn(1, 256)) / 16


def rounds(gram: torch.Tensor, weight: torch.Tensor, keep: int, objective: str, parts: int) -> int:
    """Take `keep` rows as the kernel does, and return how many rounds that took."""
    total = len(gram)
    of_column = weight if objective == "demand" else torch.ones(total)
    of_row = torch.ones(total) if objective == "demand" else weight
    cover = torch.zeros(total)
    score, stale = _scores(gram, cover, of_column) * of_row, torch.zeros(total, dtype=torch.bool)
    taken = count = 0
    while True:  # until the last row is taken
        best = int(score.argmax())
        if not stale[best]:
            taken += 1
            if taken == keep:
                return count
            cover = torch.maximum(cover, gram[best])
            score[best], stale[:] = -1.0, True
        count += 1
        bound = torch.where(stale, score, -1.0)
        filled = torch.nn.functional.pad(bound, (0, -total % parts), value=-1.0)
        candidates = filled.view(-1, parts).argmax(dim=0) * parts + torch.arange(parts)
        renewed = candidates[filled[candidates] >= 0]
        score[renewed] = _scores(gram[renewed], cover, of_column) * of_row[renewed]
        stale[renewed] = False


def _scores(rows: torch.Tensor, cover: torch.Tensor, of_column: torch.Tensor) -> Any:
    return ((rows - cover).clamp_min(0) * of_column).sum(dim=1)


if __name__ == "__main__":
    main()
