"""What pruning gains in a real server on a GPU: LLaVA-1.5-7B's shape, 576, 192 and 64 tokens.

    python demo/build_demo.py llava-7b       its configuration and tokenizer; there are no weights
    PYTHONPATH=environment:$PYTHONPATH python benchmarks/serve_gpu.py

Stock vLLM and vtprune at each budget run side by side (a GPU with 100 GB, or fewer by --keep) and
take turns within every round: TTFT and requests per second at 1 to 64 clients with 16 output
tokens, then, at eight clients, what an image costs in tower, selection and projector. Weights are
random: time does not depend on them. Rows are appended to benchmarks/results/serve-gpu.csv with
GPU, driver, versions and commit; the targets stand below the table with what was found.

Without a GPU it is a dry run of the model `bench-small` on the CPU: nothing is recorded, and no
figure is worth anything.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from _chat import image_body, photographs
from _record import append, describe_gpu
from _serving import Contender, compare, milliseconds_inside, print_table, search_path
from vllm_process import MODELS, VllmProcess

RESULTS = Path(__file__).parent / "results" / "serve-gpu.csv"
EVIDENCE = re.compile(r"vtprune:|model runner|attention backend|CUDA graphs?", re.IGNORECASE)
"""Lines of a server's log that say what ran."""

CLIENTS, SOONER, FASTER = 32, 0.45, 2.5
"""Targets for 64 of 576 tokens on an H200: at so many clients, TTFT and requests per second in
multiples of stock's."""


def main() -> None:
    """Run, print the table and the targets, append the rows."""
    arguments = _arguments()
    dry = not torch.cuda.is_available()
    if dry:
        print("no GPU: a dry run on the CPU, nothing recorded; not a measurement")
    elif not (MODELS / arguments.model).exists():
        raise SystemExit(f"{MODELS / arguments.model} is missing: python demo/build_demo.py")
    with ExitStack() as stack:
        contenders = list(_contenders(stack, arguments, dry))
        rows = [
            row
            for level in arguments.concurrency
            for row in compare(contenders, level, arguments.requests, arguments.rounds)
        ]
        for each in contenders:
            inside = milliseconds_inside(each.server, each.bodies(arguments.timed), 8)
            inside = {name: round(value, 3) for name, value in inside.items()}
            print(f"{each.name}, per image: {inside}", flush=True)
            for row in rows:
                if row["contender"] == each.name:
                    row.update({name: inside.get(name, "") for name in ("tower_ms", "select_ms")})
    print_table(rows)
    _print_targets(rows)
    if not dry:
        machine = {**describe_gpu(), "vllm": importlib.metadata.version("vllm")}
        print(", ".join(f"{key} {value}" for key, value in machine.items()))
        append(RESULTS, [{**machine, "model": arguments.model, **row} for row in rows])


def _arguments() -> argparse.Namespace:
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="llava-7b" if gpu else "bench-small")
    parser.add_argument("--keep", type=int, nargs="+", default=[64, 192])
    levels = [1, 2, 4, 8, 16, 32, 64] if gpu else [1, 2]
    parser.add_argument("--concurrency", type=int, nargs="+", default=levels)
    parser.add_argument("--requests", type=int, default=4 if gpu else 1, help="per client, round")
    parser.add_argument("--rounds", type=int, default=3 if gpu else 1)
    parser.add_argument("--timed", type=int, default=64 if gpu else 2, help="images timed inside")
    parser.add_argument("--output-tokens", type=int, default=16)
    return parser.parse_args()


def _contenders(stack: ExitStack, arguments: argparse.Namespace, dry: bool) -> Iterator[Contender]:
    """Start the servers, one after the other: each takes its share of what memory is left."""
    logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    budgets = {"stock": None, **{f"vtprune {keep}": keep for keep in arguments.keep}}
    for name, keep in budgets.items():
        print(f"starting {name} ...", flush=True)
        flags = ["--max-num-seqs", "64"]
        flags += ["--worker-extension-cls", "worker_timer.WorkerTimer"]
        if keep is not None:
            flags += ["--plugin", "vtprune", "--prune-tokens", str(keep)]
        if dry:
            flags += ["--dtype", "float32"]
        else:
            flags += ["--gpu-memory-utilization", f"{0.85 / len(budgets):.2f}"]
        log = logs / f"{name.replace(' ', '-')}.log"
        server = VllmProcess(log, arguments.model, *flags, PYTHONPATH=search_path())
        stack.enter_context(server)
        for line in dict.fromkeys(filter(EVIDENCE.search, server.log.splitlines())):
            print(f"  {line.partition('] ')[2] or line}")
        views = photographs(seed=0)  # the same ones for every contender

        def bodies(count: int, views: Iterator[str] = views) -> list[dict[str, Any]]:
            return [image_body(next(views), arguments.output_tokens) for _ in range(count)]

        yield Contender(name, server, bodies)


def _print_targets(rows: list[dict[str, Any]]) -> None:
    """Say which of the targets are met."""
    by = {(row["contender"], row["concurrency"]): row for row in rows}
    levels = sorted({row["concurrency"] for row in rows})

    def ratio(field: str, clients: int) -> float:
        return float(by["vtprune 64", clients][field] / by["stock", clients][field])

    print()
    if ("vtprune 64", CLIENTS) not in by:
        print(f"targets: not checked, they are for 64 tokens and {CLIENTS} clients")
        return
    checks = [
        (f"TTFT at {CLIENTS} clients", ratio("ttft_p50_s", CLIENTS), "at most", SOONER),
        (f"req/s at {CLIENTS} clients", ratio("requests_per_s", CLIENTS), "at least", FASTER),
        (
            f"req/s at {levels[-1]} clients over that at {levels[0]}",
            ratio("requests_per_s", levels[-1]) / ratio("requests_per_s", levels[0]),
            "at least",
            1.0,
        ),
    ]
    for what, found, how, target in checks:
        met = found <= target if how == "at most" else found >= target
        print(f"{'met' if met else 'MISSED'}: {what} {found:.2f} x stock's ({how} {target})")


if __name__ == "__main__":
    main()
