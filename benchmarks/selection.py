"""What selection costs on a CPU, compared with the tower and the published routine.

    make bench-selection                                     1 and 8 images, float32 and bfloat16
    make bench-selection ARGS="--images 1 --dtypes float32 --rounds 9"
    make bench-selection ARGS="--every-method"               every method's selection, and the tower
    make bench-selection ARGS="--question"                   adafv, which reads the question

CLIP-L/14-336 with random weights, since no contender's time depends on values. Tower, selection and
the literal routine take turns in every round, on the tower's own query, key and features; the
figures are medians. If a result differs from the literal routine's, nothing is timed. Rows are
appended to benchmarks/results/selection-cpu.csv, those of every method to
selection-methods-cpu.csv. The latter do not include a method's costs outside its selection, such as
the projection of all tokens.

A question has 40 tokens, the projector 4,096 channels, as in LLaVA-1.5-7B. Matching a question
requires projecting all 576 tokens instead of the 64 kept ones, so that difference is timed, too.
Rows are appended to selection-adafv-cpu.csv.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import literal_vispruner
import torch
from _clip_tower import HEADS, PATCHES, WIDTH, ClipTower
from _clock import Clock
from _every_method import time_methods
from _machine import describe
from _question_selection import HEADER as QUESTION_HEADER
from _question_selection import compare_question
from _question_selection import summary as question_summary
from _record import append
from vtprune_kernels import cls_importance, cosine_gram, dedup, gather_rows

from vllm_pruner import methods
from vllm_pruner.methods.base import VisualTokens

RESULTS = Path(__file__).parent / "results" / "selection-cpu.csv"
METHODS = RESULTS.with_name("selection-methods-cpu.csv")
QUESTION = RESULTS.with_name("selection-adafv-cpu.csv")
KEEP, IMPORTANT, STEP = 64, 32, 8
SCALE = (WIDTH // HEADS) ** -0.5
MOST_OF_TOWER, LEAST_SPEEDUP = 0.10, 5.0
STEPS = ("importance", "rank", "gram", "dedup", "gather")
HEADER = (
    "| images | dtype | tower ms | selection ms | of tower | literal ms | ratio "
    f"| {' | '.join(STEPS)} |"
)
METHODS_HEADER = "| images | dtype | tower | method | choosing | of tower |"


def selection(features: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Select as the model class does; return the rows `[images, KEEP, WIDTH]` for the projector."""
    method, patches = methods.get("vispruner"), features[:, 1:]
    tokens = VisualTokens(patches, cls_importance(query, key, HEADS, SCALE))
    return gather_rows([patches], method.select(tokens, KEEP, method.options()))[0]


def literal(features: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Run the published routine for the same steps."""
    scores = literal_vispruner.importance(query, key, HEADS, SCALE)
    kept = literal_vispruner.select(features[:, 1:], scores, KEEP)
    return features[:, 1:][torch.arange(len(kept)).unsqueeze(1), kept]


def profile(clock: Clock, features: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> None:
    """Time the steps of `selection` separately."""
    patches = features[:, 1:]
    with clock.step("importance"):
        scores = cls_importance(query, key, HEADS, SCALE)
    with clock.step("rank"):
        pool = scores.argsort(dim=1, descending=True, stable=True)[:, IMPORTANT:]
    with clock.step("gram"):
        gram = cosine_gram(patches, pool)
    with clock.step("dedup"):
        diverse = dedup(gram, KEEP - IMPORTANT, STEP)
    with clock.step("gather"):
        gather_rows([patches], torch.cat([pool[:, :IMPORTANT], diverse], dim=1))


def verify() -> None:
    """Compare with the literal routine on vectors of signs, whose cosines are exact.

    Raises:
        SystemExit: the results differ.
    """
    signs = torch.randint(2, (2, 1 + PATCHES, WIDTH)).mul(2).sub(1).float()
    query, key = torch.randn(2, 2, 1 + PATCHES, WIDTH)
    if not torch.equal(selection(signs, query, key), literal(signs, query, key)):
        raise SystemExit("selection differs from the literal routine: nothing is timed")


@torch.inference_mode()
def measure(images: int, dtype: torch.dtype, rounds: int) -> Clock:
    tower, pixels = ClipTower().to(dtype), torch.randn(images, 3, 336, 336).to(dtype)
    clock = Clock()
    for turn in range(rounds + 1):
        timed = clock if turn else Clock()  # the first turn warms up
        with timed.step("tower"):
            outputs = tower(pixels)
        for _ in range(3):
            with timed.step("selection"):
                selection(*outputs)
            with timed.step("literal"):
                literal(*outputs)
            profile(timed, *outputs)
    return clock


@torch.inference_mode()
def compare_methods(images: int, dtype: str, rounds: int) -> list[dict[str, Any]]:
    """Time every method's selection on one tower's tensors, and the tower before and after."""
    kind = getattr(torch, dtype)
    tower, pixels = ClipTower().to(kind), torch.randn(images, 3, 336, 336).to(kind)
    clock, outputs = Clock(), tower(pixels)
    for _ in range(rounds):
        with clock.step("tower"):
            outputs = tower(pixels)
    took = time_methods(*outputs, KEEP, HEADS, rounds)
    for _ in range(rounds):
        with clock.step("tower"):
            tower(pixels)
    whole = clock.median("tower")
    rows = []
    for name, milliseconds in sorted(took.items(), key=lambda entry: entry[1]):
        print(
            f"| {images} | {dtype} | {whole:.0f} ms | `{name}` | {milliseconds:.1f} ms "
            f"| {milliseconds / whole:.2%} |",
            flush=True,
        )
        about = {"images": images, "dtype": dtype, "kept": f"{KEEP} of {PATCHES}", "method": name}
        times = {"choosing_ms": round(milliseconds, 2), "tower_ms": round(whole, 1)}
        rows.append({**about, **times, "choosing_of_tower": round(milliseconds / whole, 5)})
    return rows


def compare_literal(images: int, dtype: str, rounds: int) -> list[dict[str, Any]]:
    """Time VisPruner's selection, its steps, the tower and the published routine."""
    clock = measure(images, getattr(torch, dtype), rounds)
    new = row(clock, images, dtype)
    steps = " | ".join(f"{new[f'{step}_ms']:.1f}" for step in STEPS)
    print(
        f"| {images} | {dtype} | {new['tower_ms']:.0f} | {new['selection_ms']:.1f} "
        f"| {new['selection_of_tower']:.2%} | {new['literal_ms']:.0f} "
        f"| {new['literal_over_selection']:.1f} | {steps} |",
        flush=True,
    )
    return [new]


def row(clock: Clock, images: int, dtype: str) -> dict[str, Any]:
    fastest, _, _, slowest = statistics.quantiles(clock.times["selection"], n=5, method="inclusive")
    return {
        "images": images,
        "dtype": dtype,
        "kept": f"{KEEP} of {PATCHES}",
        "selection_of_tower": round(clock.median("selection") / clock.median("tower"), 4),
        "literal_over_selection": round(clock.median("literal") / clock.median("selection"), 2),
        **{f"{name}_ms": round(clock.median(name), 2) for name in ("tower", "selection")},
        "selection_q20_ms": round(fastest, 2),
        "selection_q80_ms": round(slowest, 2),
        **{f"{name}_ms": round(clock.median(name), 2) for name in ("literal", *STEPS)},
    }


def summary(rows: list[dict[str, Any]]) -> str:
    most = max(entry["selection_of_tower"] for entry in rows)
    least = min(entry["literal_over_selection"] for entry in rows)
    return (
        f"selection is at most {most:.2%} of the tower (target {MOST_OF_TOWER:.0%}) and at least\n"
        f"{least:.1f} times faster than the literal routine (target {LEAST_SPEEDUP:.0f})"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dry-run", action="store_true", help="print, but append no row")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--every-method", action="store_true", help="time all methods instead")
    instead.add_argument("--question", action="store_true", help="time adafv instead")
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    torch.manual_seed(0)
    verify()
    machine = {**describe(), "threads": torch.get_num_threads()}
    print(", ".join(f"{key} {value}" for key, value in machine.items()), end="\n\n")
    compare, header, results = compare_literal, HEADER, RESULTS
    if arguments.every_method:
        compare, header, results = compare_methods, METHODS_HEADER, METHODS
    if arguments.question:
        compare, header, results = compare_question, QUESTION_HEADER, QUESTION
    print(header, "|---" * (header.count("|") - 1) + "|", sep="\n")
    rows = [
        {**machine, **new}
        for dtype in arguments.dtypes
        for images in arguments.images
        for new in compare(images, dtype, arguments.rounds)
    ]
    if not arguments.dry_run:
        append(results, rows)
    if not arguments.every_method:
        print("", question_summary(rows) if arguments.question else summary(rows), sep="\n")


if __name__ == "__main__":
    main()
