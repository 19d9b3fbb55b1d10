"""What the plugin costs requests without images: stock vLLM and vtprune on text alone.

    make bench-overhead
    make bench-overhead ARGS="--first vtprune"
    make bench-overhead ARGS="--together"          combines the latest two runs, measures nothing

The first two take 26 minutes each on two cores. Both are needed, because the server that starts
second takes about 3 % less CPU time per request, whichever it is; the cost is the geometric mean of
the two ratios.

Both servers run at once and take turns at the same prompts in short blocks (`_turns.py`); the
figures are the median of the ratios of neighbouring blocks, with a 95 % bootstrap interval, and the
ratio of the CPU times of the API processes, in which all of the plugin's work for text happens.
Rows are appended to benchmarks/results/overhead-cpu.jsonl.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from _chat import text_body
from _machine import describe
from _turns import CONTENDERS, block, ratio_row, start
from vllm_process import VllmProcess

RESULTS = Path(__file__).parent / "results" / "overhead-cpu.jsonl"
MEASURED = {"requests_per_s": "requests/s", "api_cpu_ms": "API process, CPU ms a request"}


def main() -> None:
    """Run, print the table and append it to the results."""
    arguments = _arguments()
    if arguments.together:
        return _print_together()
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        flags = ["--dtype", arguments.dtype, "--max-num-seqs", "64"]
        servers = start(stack, logs, arguments.model, arguments.first, *flags)
        pairs = _pairs(servers, arguments)
    rows = [ratio_row(name, pairs, arguments.seed) for name in MEASURED]
    _print(rows, len(pairs))
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps({**describe(), **vars(arguments), "rows": rows}) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo", help="a folder of .cache/models")
    parser.add_argument("--blocks", type=int, default=200, help="per server")
    parser.add_argument("--requests", type=int, default=64, help="per block")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--words", type=int, default=64, help="per prompt")
    parser.add_argument("--output-tokens", type=int, default=8)
    parser.add_argument("--dtype", default="float32", help="bfloat16 needs AVX-512")
    parser.add_argument(
        "--first", default="stock", choices=CONTENDERS, help="the server to start first"
    )
    parser.add_argument("--together", action="store_true", help="combine the latest two orders")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _pairs(
    servers: dict[str, VllmProcess], arguments: argparse.Namespace
) -> list[dict[str, dict[str, float]]]:
    """Measure block after block; the first two pairs compile and warm up."""
    choose = random.Random(arguments.seed)
    pairs = []
    for number in range(arguments.blocks + 2):
        bodies = [
            text_body(arguments.words, arguments.output_tokens, choose)
            for _ in range(arguments.requests)
        ]
        order = choose.sample(list(servers), k=len(servers))
        pair = {name: block(servers[name], bodies, arguments.clients) for name in order}
        if number >= 2:
            pairs.append(pair)
        if number % 20 == 19:
            ratios = [_ratio(pair, "requests_per_s") for pair in pairs]
            print(f"{len(pairs)} pairs: {statistics.median(ratios):.4f}", flush=True)
    return pairs


def _ratio(pair: dict[str, dict[str, float]], measure: str) -> float:
    return pair["vtprune"][measure] / pair["stock"][measure]


def _print(rows: list[dict[str, Any]], pairs: int) -> None:
    print(f"\n| text alone, {pairs} pairs of blocks | stock | vtprune | ratio (95 %) |")
    print("|---|---|---|---|")
    for row in rows:
        low, high = row["ratio_95"]
        print(
            f"| {MEASURED[row['measure']]} | {row['stock']:.2f} | {row['vtprune']:.2f} "
            f"| {row['ratio']:.4f} ({low:.4f}-{high:.4f}) |"
        )


def _print_together() -> None:
    """Print geometric means over both orders; half-widths of intervals are added in quadrature."""
    runs = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    latest = {run.get("first", "stock"): run["rows"] for run in runs}
    for rows in zip(*(latest[name] for name in CONTENDERS), strict=True):
        center = np.mean([np.log(row["ratio"]) for row in rows])
        half = np.linalg.norm([np.diff(np.log(row["ratio_95"]))[0] / 2 for row in rows]) / 2
        mean, low, high = np.exp([center, center - half, center + half])
        print(f"{MEASURED[rows[0]['measure']]}: {mean:.4f} ({low:.4f}-{high:.4f})")


if __name__ == "__main__":
    main()
