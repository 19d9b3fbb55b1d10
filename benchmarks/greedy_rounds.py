"""Count what `greedy_select`'s kernels read for a cover, and in how many rounds, without a GPU.

    PYTHONPATH=environment .venv/bin/python benchmarks/greedy_rounds.py

What a lazy selection does depends on how many scores are out of date (`greedy_cover_triton`), an
exact one on how many columns a taken row covers better (`greedy_exact_triton`, only for "demand"
from more than 1,024 rows), so both depend on the picture. The exact one has a round for each row
that it takes; columns are those of its last launch, and for each it reads a row of S, as the lazy
one does for a score. Rows: `scope` and `triad` on the photographs of assets/photos, by the tower of
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
from vtprune_kernels.greedy_exact_triton import SPREAD

import vllm_pruner
from vllm_pruner.methods import scope, triad

SIZES = ((576, 64), (2880, 160), (2880, 320))
Case = tuple[str, str, torch.Tensor, torch.Tensor, int]
"""What, objective, similarities `[N, N]`, weights `[N]`, rows taken."""


def main() -> None:
    """Print a table of rounds for each row taken after the first, and rows of S read by both."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--parts", type=int, default=PARTS, help="other than the kernel's")
    parts = arguments.parse_args().parts
    torch.manual_seed(0)
    torch.set_num_threads(1)  # a step is too short for two
    print(describe())
    found: dict[tuple[str, str, int, int], list[tuple[int, int]]] = {}
    for what, objective, gram, weight, keep in [*photographs(), *noises()]:
        key = (what, objective, keep, len(gram))
        count = rounds(gram, weight, keep, objective, parts)
        columns = sum(raised(gram, weight, keep, objective)[SPREAD:])
        found.setdefault(key, []).append((count, columns))
    print("| rows | objective | kept | lazy: rounds each | most | rows read | exact: columns |")
    print("|---|---|---|---|---|---|---|")
    for (what, objective, keep, total), counts in found.items():
        each = [count / (keep - 1) for count, _ in counts]
        mean = sum(each) / len(each)
        read, columns = (sum(column) / len(column) for column in zip(*counts, strict=True))
        print(
            f"| {what} | {objective} | {keep} of {total} | {mean:.1f} | {max(each):.1f} "
            f"| {parts * read:,.0f} | {columns:,.0f} |"
        )


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


def raised(gram: torch.Tensor, weight: torch.Tensor, keep: int, objective: str) -> list[int]:
    """Take `keep` rows and return how many columns each but the last covers better than before."""
    total = len(gram)
    demand = objective == "demand"
    of_column = weight if demand else torch.ones(total)
    of_row = torch.ones(total) if demand else weight
    cover = torch.zeros(total)
    gain, open_rows = _scores(gram, cover, of_column), torch.ones(total, dtype=torch.bool)
    counts = []
    for _ in range(keep - 1):
        best = int((gain * of_row).where(open_rows, -1.0).argmax())
        open_rows[best] = False
        better = gram[best] > cover
        counts.append(int(better.sum()))
        lost = gram[better].minimum(gram[best, better, None]) - cover[better, None]
        gain -= (lost.clamp_min(0) * of_column[better, None]).sum(dim=0)
        cover = torch.maximum(cover, gram[best])
    return counts


def _scores(rows: torch.Tensor, cover: torch.Tensor, of_column: torch.Tensor) -> Any:
    return ((rows - cover).clamp_min(0) * of_column).sum(dim=1)


if __name__ == "__main__":
    main()
