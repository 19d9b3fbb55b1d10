"""What reading the question costs on a CPU: `adafv` beside the tower that it follows.

    make bench-selection-adafv
    make bench-selection-adafv ARGS="--images 1 --dtypes float32 --rounds 9"

CLIP-L/14-336 and a projector into 4,096 channels, as in LLaVA-1.5-7B, with random weights: no time
depends on values. A question has 40 tokens. Selection is importance from query and key, relevance
and the choice, and the gather. Matching a question takes all 576 tokens projected where other
methods project the 64 kept ones, so what that adds is timed beside it. The parts take turns in
every round; the figures are medians. Rows are appended to
benchmarks/results/selection-adafv-cpu.csv.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _clip_tower import HEADS, PATCHES, WIDTH, ClipTower
from _machine import describe
from _record import append
from torch import nn
from vtprune_kernels import cls_importance, gather_rows

from vllm_pruner import methods
from vllm_pruner.methods.base import VisualTokens

RESULTS = Path(__file__).parent / "results" / "selection-adafv-cpu.csv"
KEEP, QUESTION, DECODER = 64, 40, 4096
SCALE = (WIDTH // HEADS) ** -0.5
MOST_OF_TOWER = 0.15


@torch.inference_mode()
def measure(images: int, dtype: torch.dtype, rounds: int) -> dict[str, float]:
    """Return median milliseconds of each part."""
    tower, pixels = ClipTower().to(dtype), torch.randn(images, 3, 336, 336).to(dtype)
    projector = nn.Sequential(nn.Linear(WIDTH, DECODER), nn.GELU(), nn.Linear(DECODER, DECODER))
    projector.to(dtype)
    text = [torch.randn(QUESTION, DECODER).to(dtype) for _ in range(images)]
    features, query, key = tower(pixels)
    patches = features[:, 1:]
    projected = projector(patches)
    adafv, vispruner = methods.get("adafv"), methods.get("vispruner")

    def select() -> torch.Tensor:
        tokens = VisualTokens(patches, cls_importance(query, key, HEADS, SCALE), projected, text)
        return gather_rows([projected], adafv.select(tokens, KEEP, adafv.options()))[0]

    def select_blind() -> torch.Tensor:
        tokens = VisualTokens(patches, cls_importance(query, key, HEADS, SCALE))
        return gather_rows([patches], vispruner.select(tokens, KEEP, vispruner.options()))[0]

    parts: dict[str, Callable[[], Any]] = {
        "tower": lambda: tower(pixels),
        "selection": select,
        "vispruner": select_blind,
        "project_all": lambda: projector(patches),
        "project_kept": lambda: projector(patches[:, :KEEP]),
    }
    times: dict[str, list[float]] = defaultdict(list)
    for turn in range(rounds + 1):
        for name, part in parts.items():
            for _ in range(1 if name == "tower" else 3):
                start = time.perf_counter()
                part()
                if turn:  # the first turn warms up
                    times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(found) for name, found in times.items()}


def main() -> None:
    """Measure, print the table and append it to the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dry-run", action="store_true", help="print, but append no row")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    machine = {**describe(), "threads": torch.get_num_threads()}
    print(", ".join(f"{key} {value}" for key, value in machine.items()), end="\n\n")
    print("| images | dtype | tower | adafv | of tower | vispruner | projecting all, not 64 |")
    print("|---" * 7 + "|")
    rows = []
    for dtype in arguments.dtypes:
        for images in arguments.images:
            found = measure(images, getattr(torch, dtype), arguments.rounds)
            share = found["selection"] / found["tower"]
            figures = {f"{name}_ms": round(value, 2) for name, value in found.items()}
            rows.append(
                {
                    **machine,
                    "images": images,
                    "dtype": dtype,
                    "kept": f"{KEEP} of {PATCHES}",
                    "question_tokens": QUESTION,
                    "selection_of_tower": round(share, 4),
                    **figures,
                }
            )
            more = found["project_all"] - found["project_kept"]
            print(
                f"| {images} | {dtype} | {found['tower']:.0f} ms | {found['selection']:.1f} ms "
                f"| {share:.2%} | {found['vispruner']:.1f} ms | {more:.1f} ms |",
                flush=True,
            )
    if not arguments.dry_run:
        append(RESULTS, rows)
    most = max(entry["selection_of_tower"] for entry in rows)
    print(f"\nselection is at most {most:.2%} of the tower (target {MOST_OF_TOWER:.0%})")


if __name__ == "__main__":
    main()
