"""What the kernels cost on a GPU, compared with lower bounds and alternatives.

    python benchmarks/kernels.py                  everything; needs a GPU, ten minutes
    python benchmarks/kernels.py --only dedup     some operators, or `selection`
    TRITON_INTERPRET=1 python benchmarks/kernels.py    dry run of the kernels in the interpreter

Every operator is verified first, and nothing is timed if a result is wrong. Contenders take turns:
the kernel, the same as a CUDA graph, the reference in eager torch and under `torch.compile`, and,
for the whole selection, the literal published routine. The floor is the larger of bytes over the
measured bandwidth and operations over the measured bfloat16 rate. Each row is appended at once to
benchmarks/results/kernels-gpu.csv, or to --out.

Without a GPU it is a dry run: small shapes, no rows, meaningless figures.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from _clip_tower import PATCHES
from _kernel_cases import Case, cases
from _kernel_selection import measure_selection
from _record import append, bandwidth, describe_gpu, flops, graph_of, time_interleaved
from vtprune_kernels import implementation
from vtprune_kernels._triton import INTERPRETED
from vtprune_kernels.spec import Spec, all_specs

RESULTS = Path(__file__).parent / "results" / "kernels-gpu.csv"
CONTENDERS = ("kernel", "graph", "eager", "compiled", "literal", "tower")
Row = dict[str, Any]
Times = dict[str, tuple[float, float, float]]


@dataclass(frozen=True, slots=True)
class Machine:
    """The device and its measured rates, which are 1 without a GPU."""

    device: torch.device
    description: dict[str, str]
    bytes_per_s: float = 1.0
    operations_per_s: float = 1.0

    @property
    def is_gpu(self) -> bool:
        return self.device.type == "cuda"

    def floor(self, case: Case) -> float:
        """Return a lower bound of the microseconds that a case takes."""
        return 1e6 * max(case.bytes / self.bytes_per_s, case.operations / self.operations_per_s)


@torch.inference_mode()
def main() -> None:
    """Verify, measure and record all cases."""
    arguments = _arguments()
    torch.manual_seed(0)
    machine = _machine()
    rounds = arguments.rounds if machine.is_gpu else 2
    specs = {spec.name: spec for spec in all_specs()}
    rows = []
    for row in _rows(arguments.only, specs, machine, rounds):
        rows.append(row)
        if machine.is_gpu:
            append(arguments.out, [{**machine.description, **row}])
    if machine.is_gpu:
        _print_targets(rows)


def _rows(
    only: list[str] | None, specs: dict[str, Spec], machine: Machine, rounds: int
) -> Iterator[Row]:
    """Yield the rows of the operators, or those named in `only`, and of the whole selection."""
    found = list(cases(machine.device, large=machine.is_gpu))
    for name in only or [*dict.fromkeys(case.op for case in found), "selection"]:
        if name == "selection":
            yield from _selections(machine, rounds)
        for case in found:
            if case.op == name:
                yield _measure(specs[name], case, machine, rounds)


def _arguments() -> argparse.Namespace:
    names = list(dict.fromkeys(spec.name for spec in all_specs()))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    choices = [*names, "selection"]
    parser.add_argument("--only", nargs="+", choices=choices, help="only these, in this order")
    parser.add_argument("--out", type=Path, default=RESULTS, help="CSV file (%(default)s)")
    parser.add_argument("--rounds", type=int, default=15)
    return parser.parse_args()


def _machine() -> Machine:
    if torch.cuda.is_available():
        device = torch.device("cuda")
        machine = Machine(device, describe_gpu(), bandwidth(device), flops(device))
        print(", ".join(f"{key} {value}" for key, value in machine.description.items()))
        print(
            f"measured: {machine.bytes_per_s / 1e12:.2f} TB/s, "
            f"{machine.operations_per_s / 1e12:.0f} TFLOP/s bfloat16"
        )
    else:
        machine = Machine(torch.device("cpu"), {})
        print("no GPU: a dry run, small shapes, nothing recorded; not a measurement")
    print(f"implementation: {implementation(machine.device)}\n")
    return machine


def _measure(spec: Spec, case: Case, machine: Machine, rounds: int) -> Row:
    _verify(spec, case.inputs)
    contenders: dict[str, Callable[[], Any]] = {
        "kernel": lambda: spec.op(**case.inputs),
        "eager": lambda: spec.reference(**case.inputs),
    }
    if machine.is_gpu:
        contenders["graph"] = graph_of(contenders["kernel"])
        if case.compiled:
            contenders["compiled"] = torch.compile(contenders["eager"], dynamic=False)
    warm_up = 2 if machine.is_gpu else 0  # the interpreter compiles nothing
    found = time_interleaved(contenders, rounds, machine.device, warm_up)
    row = _row(case.op, case.shape, found, machine.floor(case) if machine.is_gpu else None)
    print(f"{case.op:18} {case.shape:20} agrees with the reference{_shown(row)}", flush=True)
    return row


def _verify(spec: Spec, inputs: dict[str, Any]) -> None:
    """Stop everything if kernel and reference disagree."""
    found = spec.op(**inputs)
    copied = [t.clone() for t in found] if spec.name == "gather_rows" else found
    wanted = spec.reference(**inputs)
    atol = spec.tolerance[torch.bfloat16]
    try:
        torch.testing.assert_close(copied, wanted, rtol=0, atol=atol)
    except AssertionError as error:
        raise SystemExit(f"{spec.name} is wrong, nothing is timed: {error}") from error


def _selections(machine: Machine, rounds: int) -> Iterator[Row]:
    if INTERPRETED:
        print("selection: left out, 1024 channels take the interpreter minutes")
        return
    for images in (1, 8, 64) if machine.is_gpu else (1,):
        found = measure_selection(machine.device, images, rounds)
        row = _row("selection", f"{images} x {PATCHES}", found, None)
        print(f"selection of {images}, 576 to 64: agrees with the references{_shown(row)}")
        yield row


def _row(op: str, shape: str, found: Times, floor: float | None) -> Row:
    """Return medians of all contenders in microseconds; empty for those that were not timed."""
    return {
        "op": op,
        "shape": shape,
        "floor_us": "" if floor is None else round(floor, 2),
        **{f"{name}_us": round(found[name][0], 1) if name in found else "" for name in CONTENDERS},
        "kernel_q20_us": round(found["kernel"][1], 1),
        "kernel_q80_us": round(found["kernel"][2], 1),
    }


def _shown(row: Row) -> str:
    """Return a GPU's figures as text; empty in a dry run."""
    if row["graph_us"] == "":
        return ""
    times = "".join(f" {name} {row[f'{name}_us']}" for name in CONTENDERS if row[f"{name}_us"])
    floor = row["floor_us"]
    return times + (f"; {row['graph_us'] / floor:.2f} x the floor of {floor}" if floor else "")


def _print_targets(rows: list[Row]) -> None:
    """Check the targets, which are for an H200; those that this run did not time are skipped."""
    found = {(row["op"], row["shape"]): row for row in rows}
    checks: list[tuple[str, float, str, float]] = []
    for images, limit in ((1, 150.0), (8, None), (64, 400.0)):
        if row := found.get(("selection", f"{images} x {PATCHES}")):
            if limit:
                checks.append((f"selection of {images}, us", row["graph_us"], "at most", limit))
            if images == 1:
                faster = row["literal_us"] / row["kernel_us"]
                checks.append(("times the literal routine", faster, "at least", 20.0))
            else:
                share = 100 * row["kernel_us"] / row["tower_us"]
                checks.append((f"selection of {images}, % of tower", share, "at most", 3.0))
    if row := found.get(("cls_importance", f"64 x {PATCHES}")):
        above = row["graph_us"] / row["floor_us"]
        checks.append(("importance of 64, floors", above, "at most", 1.5))
    for what, number, how, target in checks:
        met = number <= target if how == "at most" else number >= target
        print(f"{'met' if met else 'MISSED'}: {what} {number:.2f} ({how} {target:g})")
    if any(row["op"] == "selection" for row in rows):
        print("met: nothing from tower to projector waits for the host (sync debug, CUDA graph)")


if __name__ == "__main__":
    main()
