"""What the kernels cost on a GPU, beside their floors and the alternatives.

    python benchmarks/kernels.py                  everything; needs a GPU, ten minutes
    python benchmarks/kernels.py --only dedup     one operator, or `selection`
    TRITON_INTERPRET=1 python benchmarks/kernels.py    dry run of the kernels in the interpreter

Every operator is verified first, and nothing is timed if a result is wrong. Contenders take turns:
the kernel, the same as a CUDA graph, the reference in eager torch and under `torch.compile`, and,
for the whole selection, the literal published routine. The floor is the larger of bytes over the
measured bandwidth and operations over the measured bfloat16 rate. Rows are appended to
benchmarks/results/kernels-gpu.csv.

Without a GPU it is a dry run: small shapes, no row, no figure worth anything.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import literal_vispruner
import torch
from _clip_tower import HEADS, PATCHES, WIDTH, ClipTower
from _record import append, bandwidth, describe_gpu, flops, graph_of, time_interleaved
from vtprune_kernels import cls_importance, cosine_gram, dedup, gather_rows, implementation
from vtprune_kernels._triton import INTERPRETED
from vtprune_kernels.spec import Spec, all_specs, features

RESULTS = Path(__file__).parent / "results" / "kernels-gpu.csv"
KEEP, IMPORTANT, STEP = 64, 32, 8
SCALE = (WIDTH // HEADS) ** -0.5
CLUSTERED = "clustered"  # the kind of input: real features have near-duplicates


@dataclass(frozen=True, slots=True)
class Case:
    """One operator at one shape, and the least it could cost."""

    op: str
    shape: str
    inputs: dict[str, Any]
    bytes: float
    operations: float = 0.0
    compiled: bool = True
    """Whether `torch.compile` gets a turn: it would unroll hundreds of rounds for minutes."""


def cases(device: torch.device, large: bool) -> Iterator[Case]:
    """Yield the shapes of LLaVA-1.5 in batches, of LLaVA-NeXT's five crops, of Qwen2.5-VL."""
    patches, width, heads = (PATCHES, WIDTH, HEADS) if large else (40, 64, 2)
    for images in (1, 5, 8, 64) if large else (2,):
        label = f"{images} x {patches}"
        wide = (images, 1 + patches, 3 * width)
        query, key, _ = features(CLUSTERED, wide, torch.bfloat16, device).chunk(3, dim=-1)
        rows = features(CLUSTERED, (images, patches, width), torch.bfloat16, device)
        attention = {"query": query, "key": key, "num_heads": heads, "scale": SCALE}
        total = images * patches
        yield Case("cls_importance", label, attention, 2.0 * total * width + 4 * total)
        # Twice the map's products, half of them each for the log-sum-exp and for the columns.
        yield Case(
            "column_importance",
            label,
            attention,
            4.0 * total * width,
            4.0 * total * patches * width,
        )
        scores = torch.rand(images, patches, device=device)
        yield Case("top_k_sorted", label, {"scores": scores, "k": patches // 9}, 4.0 * total)
        pool = scores.argsort(dim=1)[:, patches // 18 :]
        length = pool.shape[1]
        gram_bytes = 2.0 * images * length * width + 4.0 * images * length**2
        yield Case(
            "cosine_gram",
            label,
            {"features": rows, "rows": pool},
            gram_bytes,
            1.0 * images * length**2 * width,  # symmetric: half of 2 R^2 D
        )
        gram = cosine_gram(rows, pool)
        removal = {"gram": gram, "keep": patches // 18, "step": STEP}
        yield Case("dedup", label, removal, 4.0 * gram.numel(), compiled=False)
        yield Case(
            "row_max_cosine",
            label,
            {"features": rows, "mask": "before"},
            2.0 * total * width,
            1.0 * total * patches * width,
        )
        for objective in ("max-min", "coverage", "dpp", "demand"):
            greedy = {"gram": gram, "keep": patches // 9, "objective": objective}
            # Each taken row's column at least; the diagonal of the first step is less.
            least = 4.0 * images * (patches // 9) * length
            yield Case("greedy_select", f"{label} {objective}", greedy, least, compiled=False)
        kept = pool[:, : patches // 9].sort(dim=1).values
        out = [rows.new_empty(images, kept.shape[1], width)]
        moved = 4.0 * out[0].numel()
        yield Case("gather_rows", label, {"tensors": [rows], "kept": kept, "out": out}, moved)
        texts, llm = (50, 4096) if large else (9, 64)
        visual = features(CLUSTERED, (total, llm), torch.bfloat16, device)
        text = features("random", (images * texts, llm), torch.bfloat16, device)
        relevance = {
            "visual": visual,
            "text": text,
            "visual_bounds": torch.arange(images + 1, device=device) * patches,
            "text_bounds": torch.arange(images + 1, device=device) * texts,
            "max_visual": patches,
            "max_text": texts,
        }
        read = 2.0 * (visual.numel() + text.numel())
        # The reference takes one image after the other, which no compiler sees through.
        work = 2.0 * total * texts * llm
        yield Case("text_relevance", label, relevance, read, work, compiled=False)
    if large:
        query, key = torch.randn(2, 11520, 16 * 80, device=device, dtype=torch.bfloat16)
        merged = {
            "query": query,
            "key": key,
            "num_heads": 16,
            "scale": 80**-0.5,
            "cu_seqlens": torch.tensor([0, 11520], device=device),
            "max_seqlen": 11520,
            "token_of_patch": torch.randperm(11520, device=device) // 4,
            "patches_per_token": 4,
        }
        operations = 4.0 * 11520**2 * 16 * 80
        least = 4.0 * query.numel()
        yield Case("column_importance", "11520 merged", merged, least, operations, compiled=False)


def verify(spec: Spec, inputs: dict[str, Any]) -> None:
    """Stop everything if kernel and reference disagree."""
    found = spec.op(**inputs)
    copied = [t.clone() for t in found] if spec.name == "gather_rows" else found
    wanted = spec.reference(**inputs)
    atol = spec.tolerance[torch.bfloat16]
    try:
        torch.testing.assert_close(copied, wanted, rtol=0, atol=atol)
    except AssertionError as error:
        raise SystemExit(f"{spec.name} is wrong, nothing is timed: {error}") from error


def select_rows(
    rows: torch.Tensor, query: torch.Tensor, key: torch.Tensor, reference: bool = False
) -> torch.Tensor:
    """Do as the plugin does between the tower's last layer and the projector."""
    specs = {spec.name: spec for spec in all_specs()}
    if reference:
        score, gram, remove = (
            specs[name].reference for name in ("cls_importance", "cosine_gram", "dedup")
        )
    else:
        score, gram, remove = cls_importance, cosine_gram, dedup
    order = score(query, key, HEADS, SCALE).argsort(dim=1, descending=True, stable=True)
    pool = order[:, IMPORTANT:]
    diverse = pool.gather(1, remove(gram(rows, pool), KEEP - IMPORTANT, STEP))
    kept = torch.cat([order[:, :IMPORTANT], diverse], dim=1).sort(dim=1).values
    return gather_rows([rows], kept)[0]


def literal(rows: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """The published routine over the same distance."""
    kept = literal_vispruner.select(
        rows, literal_vispruner.importance(query, key, HEADS, SCALE), KEEP
    )
    return rows[torch.arange(len(kept), device=kept.device).unsqueeze(1), kept]


def measure_selection(
    device: torch.device, images: int, rounds: int
) -> dict[str, tuple[float, ...]]:
    """Time the whole selection in its places: alone, as a graph, beside the tower."""
    dtype = torch.bfloat16
    tower = ClipTower().to(device, dtype)
    pixels = torch.randn(images, 3, 336, 336, device=device, dtype=dtype)
    tokens, query, key = tower(pixels)
    rows = tokens[:, 1:]
    wanted = select_rows(rows, query, key, reference=True)
    if device.type == "cpu":
        contenders = {"kernels": lambda: select_rows(rows, query, key)}
    else:
        projector = torch.nn.Linear(WIDTH, 4096, device=device, dtype=dtype)

        def to_projector() -> torch.Tensor:
            kept = select_rows(rows, query, key)
            projector(kept)
            return kept

        to_projector()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")  # raises where the host would wait
        to_projector()
        torch.cuda.set_sync_debug_mode("default")
        if not torch.equal(graph_of(to_projector)(), wanted):
            raise SystemExit("the captured selection differs: nothing is timed")
        contenders = {
            "kernels": lambda: select_rows(rows, query, key),
            "graph": graph_of(lambda: select_rows(rows, query, key)),
            "eager": lambda: select_rows(rows, query, key, reference=True),
            "literal": lambda: literal(rows, query, key),
            "tower": lambda: tower(pixels),
        }
    if not torch.equal(select_rows(rows, query, key), wanted):
        raise SystemExit("selection differs from the references: nothing is timed")
    return time_interleaved(contenders, rounds, device)


def print_targets(selections: dict[int, dict[str, tuple[float, ...]]], rows: list[Any]) -> None:
    """Check the targets, which are for an H200; those that this run did not time are left out."""
    checks: list[tuple[str, float, str, float]] = []
    for images, found in selections.items():
        alone, whole, tower = found["graph"][0], found["kernels"][0], found["tower"][0]
        if images in (1, 64):
            limit = 150.0 if images == 1 else 400.0
            checks.append((f"selection of {images}, us", alone, "at most", limit))
        if images == 1:
            checks.append(
                ("times the literal routine", found["literal"][0] / whole, "at least", 20.0)
            )
        if images >= 8:
            checks.append(
                (f"selection of {images}, % of tower", 100 * whole / tower, "at most", 3.0)
            )
    for row in rows:
        if row["op"] == "cls_importance" and row["shape"].startswith("64 "):
            above = row["graph_us"] / row["floor_us"]
            checks.append(("importance of 64, floors", above, "at most", 1.5))
    for what, number, how, target in checks:
        met = number <= target if how == "at most" else number >= target
        print(f"{'met' if met else 'MISSED'}: {what} {number:.2f} ({how} {target:g})")
    if selections:
        print(
            "met: nothing between tower and projector waits for the host (sync debug, CUDA graph)"
        )


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="one operator, or selection")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    gpu = torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    rate, rounds = (1.0, 1.0), arguments.rounds if gpu else 2
    if gpu:
        machine, rate = describe_gpu(), (bandwidth(device), flops(device))
        print(", ".join(f"{key} {value}" for key, value in machine.items()))
        print(f"measured: {rate[0] / 1e12:.2f} TB/s, {rate[1] / 1e12:.0f} TFLOP/s bfloat16")
    else:
        print("no GPU: a dry run, small shapes, nothing recorded; not a measurement")
    print(f"implementation: {implementation(device)}\n")
    specs, rows = {spec.name: spec for spec in all_specs()}, []
    for case in cases(device, large=gpu):
        if arguments.only not in (None, case.op):
            continue
        spec = specs[case.op]
        verify(spec, case.inputs)
        contenders = {"kernel": lambda: spec.op(**case.inputs)}  # noqa: B023  called in this turn
        if gpu:
            contenders["graph"] = graph_of(contenders["kernel"])
            contenders["eager"] = lambda: spec.reference(**case.inputs)  # noqa: B023
            if case.compiled:
                contenders["compiled"] = torch.compile(contenders["eager"], dynamic=False)
        found = time_interleaved(contenders, rounds, device)
        floor = 1e6 * max(case.bytes / rate[0], case.operations / rate[1])
        print(f"{case.op:18} {case.shape:20}", end="")
        if gpu:
            times = {
                f"{name}_us": round(found[name][0], 1) if name in found else ""
                for name in ("kernel", "graph", "eager", "compiled")
            }
            spread = {
                "kernel_q20_us": round(found["kernel"][1], 1),
                "kernel_q80_us": round(found["kernel"][2], 1),
            }
            row = {
                "op": case.op,
                "shape": case.shape,
                "floor_us": round(floor, 2),
                **times,
                **spread,
            }
            rows.append(row)
            print(f" floor {floor:8.2f}", *(f"{name} {value}" for name, value in times.items()))
            print(f"{'':39} {found['graph'][0] / floor:.2f} x floor", flush=True)
        else:
            print(" agrees with the reference", flush=True)
    selections = {}
    if arguments.only in (None, "selection"):
        if INTERPRETED:
            print("selection: left out, 1024 channels take the interpreter minutes")
        for images in (1, 8, 64) if gpu else () if INTERPRETED else (1,):
            selections[images] = measure_selection(device, images, rounds)
            print(f"selection of {images}, 576 to 64: agrees with the references")
    if gpu:
        for images, found in selections.items():
            times = {
                f"{name}_us": round(found[name][0], 1) for name in ("kernels", "graph", "eager")
            }
            rows.append(
                {
                    "op": "selection",
                    "shape": f"{images} x {PATCHES}",
                    "floor_us": "",
                    "kernel_us": times["kernels_us"],
                    "graph_us": times["graph_us"],
                    "eager_us": times["eager_us"],
                    "compiled_us": "",
                    "kernel_q20_us": round(found["kernels"][1], 1),
                    "kernel_q80_us": round(found["kernels"][2], 1),
                    "literal_us": round(found["literal"][0], 1),
                    "tower_us": round(found["tower"][0], 1),
                }
            )
        blank = {"literal_us": "", "tower_us": ""}
        append(RESULTS, [{**machine, **blank, **row} for row in rows])
        print_targets(selections, rows)


if __name__ == "__main__":
    main()
