"""What a request about a picture costs the API server: CPU time of stock vLLM and vtprune.

    make bench-host
    make bench-host ARGS="--first vtprune"
    make bench-host ARGS="--vtprune-flags '--prune-floor off'"

With a GPU, a single API process is the first bottleneck of many requests. Both servers run at once
and take turns at the same requests in short blocks (`_turns.py`); the figure is the ratio of the
CPU times of their API processes, with a 95 % bootstrap interval and its spread over quarters of the
run. Answers stream, 16 tokens each. There are three kinds of traffic:

- `fresh`: every picture is new;
- `known`: eight pictures that were asked about before, with a new question each time;
- `text`: no picture, which is what of the other two no plugin for pictures can save.

The engine runs eagerly, because it is not measured. The server that starts second takes about 3 %
less, whichever it is, so measure both orders. Rows are appended to
benchmarks/results/host-cpu.jsonl. `--dry-run` asks for one block and records nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from _chat import image_body, photographs, text_body
from _machine import describe
from _turns import CONTENDERS, block, ratio_row, start
from vllm_process import VllmProcess

RESULTS = Path(__file__).parent / "results" / "host-cpu.jsonl"
KNOWN = 8
"""Pictures of the traffic `known`."""

WORDS = 12
"""Of a question of the traffic `text`."""

Pairs = list[dict[str, dict[str, float]]]


def main() -> None:
    """Run, print the table and append it to the results."""
    arguments = _arguments()
    traffic = {"fresh": _fresh(arguments), "known": _known(arguments), "text": _text(arguments)}
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        flags = ["--dtype", arguments.dtype, "--max-num-seqs", "64", "--enforce-eager"]
        flags += shlex.split(arguments.flags)
        ours = shlex.split(arguments.vtprune_flags)
        servers = start(stack, logs, arguments.model, arguments.first, *flags, ours=ours)
        pairs = {kind: _pairs(servers, bodies, arguments) for kind, bodies in traffic.items()}
    rows = [_row(kind, pairs[kind], arguments.seed) for kind in traffic]
    _print(rows, arguments.blocks)
    if arguments.dry_run:
        print("\nA dry run: not a measurement, nothing recorded.")
        return
    settings = {name: value for name, value in vars(arguments).items() if name != "dry_run"}
    with RESULTS.open("a") as file:
        file.write(json.dumps({**describe(), **settings, "rows": rows}) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo", help="a folder of .cache/models")
    parser.add_argument("--blocks", type=int, default=16, help="per server and kind of traffic")
    parser.add_argument("--requests", type=int, default=24, help="per block")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--output-tokens", type=int, default=16)
    parser.add_argument(
        "--size", type=int, nargs=2, default=[448, 336], metavar=("WIDTH", "HEIGHT")
    )
    parser.add_argument("--dtype", default="float32", help="bfloat16 needs AVX-512")
    parser.add_argument("--flags", default="", help="more flags of vLLM, for both servers")
    parser.add_argument(
        "--vtprune-flags", default="", help="flags of vtprune, such as '--prune-floor off'"
    )
    parser.add_argument(
        "--first", default="stock", choices=CONTENDERS, help="the server to start first"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry-run", action="store_true", help="no measurement, nothing recorded")
    arguments = parser.parse_args()
    if arguments.dry_run:
        vars(arguments).update(blocks=1, requests=8, output_tokens=2, size=[112, 112])
    return arguments


def _fresh(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for picture in photographs(*arguments.size, seed=arguments.seed):
        yield image_body(picture, arguments.output_tokens)


def _known(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    few = itertools.islice(photographs(*arguments.size, seed=arguments.seed + 1000), KNOWN)
    choose = random.Random(arguments.seed)
    for picture in itertools.cycle(list(few)):
        question = f"What is it that number {choose.randrange(10**9)} stands for?"
        yield image_body(picture, arguments.output_tokens, question)


def _text(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    choose = random.Random(arguments.seed)
    while True:
        yield text_body(WORDS, arguments.output_tokens, choose)


def _pairs(
    servers: dict[str, VllmProcess], bodies: Iterator[dict[str, Any]], arguments: argparse.Namespace
) -> Pairs:
    """Measure block after block. The first pair warms up, and fills the caches for `known`."""
    choose = random.Random(arguments.seed)
    pairs = []
    for _ in range(arguments.blocks + 1):
        asked = list(itertools.islice(bodies, max(arguments.requests, KNOWN)))
        order = choose.sample(list(servers), k=len(servers))
        pairs.append({name: block(servers[name], asked, arguments.clients) for name in order})
        print(json.dumps({name: pairs[-1][name]["api_cpu_ms"] for name in CONTENDERS}), flush=True)
    return pairs[1:]


def _row(kind: str, pairs: Pairs, seed: int) -> dict[str, Any]:
    """Return the ratio over all pairs, and its minimum and maximum over quarters of the run."""
    size = max(1, len(pairs) // 4)
    quarters = [pairs[first : first + size] for first in range(0, len(pairs), size)]
    ratios = [ratio_row("api_cpu_ms", quarter, seed)["ratio"] for quarter in quarters]
    spread = [min(ratios), max(ratios)]
    return {"traffic": kind, **ratio_row("api_cpu_ms", pairs, seed), "quarters": spread}


def _print(rows: list[dict[str, Any]], blocks: int) -> None:
    print(
        f"\n| API process, CPU ms a request, {blocks} pairs of blocks | stock | vtprune | ratio |"
    )
    print("|---|---|---|---|")
    for row in rows:
        low, high = row["ratio_95"]
        least, most = row["quarters"]
        print(
            f"| {row['traffic']} | {row['stock']:.2f} | {row['vtprune']:.2f} "
            f"| {row['ratio']:.3f} ({low:.3f}-{high:.3f}; quarters {least:.3f}-{most:.3f}) |"
        )


if __name__ == "__main__":
    main()
