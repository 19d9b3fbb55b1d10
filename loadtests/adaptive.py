"""A rate that follows the load against two that do not, on a ramp of users; and what it costs.

    make loadtest-adaptive                    about five minutes on two cores
    make loadtest-adaptive ARGS="--users 1 32 --seconds 20"

One server, whose own rate moves (`--prune-rate-under-load`), takes three ramps, one after the
other: of requests that have its rate, and of requests that name the low or the high one, which it
leaves alone. For each the table says up to how many users the 95th percentile of the time to first
token stays within the bound, a multiple of the low rate's median with one user. Then the demo
LLaVA, which was trained to answer, is asked one question at a time, at the rate of the moment and
at the low one: at low load the two accuracies have to be the same.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

from _load import Load, answers
from _machine import describe
from _summary import summary
from vllm_process import VllmProcess
from vtprune_evaluate.client import Server
from vtprune_evaluate.contender import AS_IS, DEFAULT_METHOD, Contender
from vtprune_evaluate.datasets.synthetic import SYNTHETIC
from vtprune_evaluate.run import evaluate

ROOT = Path(__file__).parents[1]
DEMO = str(ROOT / "demo" / "llava")


def main() -> None:
    """Measure, print, and write the figures down."""
    arguments = _arguments()
    bodies = _bodies(arguments)
    rows: list[dict[str, Any]] = []
    with _server(arguments.checkpoint, arguments) as server:
        answers(Load("single_image", users=2, seconds=2, seed=999), server.url)
        for name, body in bodies.items():
            rows += _ramp(server.url, name, json.dumps(body), arguments)
    bound = arguments.times * next(row for row in rows if row["rate"] == "low")["ttft_p50_s"]
    held = {name: _held(rows, name, bound) for name in bodies}
    for name, users in held.items():
        print(f"{name:7} first token within {bound:.2f} s (p95) up to {users} users")
    accuracy = _accuracies(arguments)
    print(f"accuracy of the demo, one question at a time, %: {accuracy}")
    settings = {**vars(arguments), "output": None}
    result = {"machine": describe(), "settings": settings, "bound_s": bound, "held": held}
    result |= {"accuracy": accuracy, "rows": rows}
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--low", type=float, default=0.5)
    parser.add_argument("--high", type=float, default=0.9)
    parser.add_argument("--load", default='{"waiting": 3, "seconds": 5}', help="--prune-load")
    parser.add_argument("--users", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--seconds", type=float, default=15.0, help="at each number of users")
    parser.add_argument("--times", type=float, default=8.0, help="the bound, in unloaded medians")
    parser.add_argument("--questions", type=int, default=200, help="for accuracy")
    parser.add_argument("--checkpoint", default="bench-small", help="a folder of .cache/models")
    results = Path(__file__).parent / "results"
    parser.add_argument("--output", type=Path, default=results / "adaptive.json")
    return parser.parse_args()


def _bodies(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """What requests of each kind say: those of the moving rate nothing."""
    named = {"low": arguments.low, "high": arguments.high}
    return {"moving": {}} | {name: {"vtprune": {"rate": rate}} for name, rate in named.items()}


@contextmanager
def _server(checkpoint: str, arguments: argparse.Namespace) -> Iterator[VllmProcess]:
    flags = ["--dtype", "float32", "--max-num-seqs", "64", "--enforce-eager"]
    flags += ["--max-num-batched-tokens", "1024", "--plugin", "vtprune"]
    flags += ["--prune-rate", str(arguments.low), "--prune-load", arguments.load]
    flags += ["--prune-rate-under-load", str(arguments.high)]
    with (
        tempfile.TemporaryDirectory() as folder,
        VllmProcess(Path(folder) / "server.log", checkpoint, *flags) as server,
    ):
        yield server


def _ramp(url: str, name: str, body: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of one kind of requests; the levels follow each other without a pause."""
    rows = []
    for users in arguments.users:
        seed = 1000 * len(name) + users  # no picture of another ramp is cached
        load = Load("single_image", users=users, seconds=arguments.seconds, seed=seed, body=body)
        row = {"rate": name, "users": users, **summary(answers(load, url), 0.0)}
        row["server_rate"] = _rate(url)
        rows.append(row)
        print(
            f"{name:7} {users:3} users {row['requests_per_s']:6.2f}/s  TTFT p50 "
            f"{row['ttft_p50_s']:6.2f} s  p95 {row['ttft_p95_s']:6.2f} s  "
            f"{row['prompt_tokens']:4.0f} prompt tokens, server's rate {row['server_rate']}",
            flush=True,
        )
    return rows


def _rate(url: str) -> float | None:
    """The server's own rate after a level."""
    with urllib.request.urlopen(f"{url}/metrics") as response:
        lines = response.read().decode().splitlines()
    shown = [line for line in lines if line.startswith("vtprune_server_rate")]
    return float(shown[0].rpartition(" ")[2]) if shown else None


def _held(rows: list[dict[str, Any]], name: str, bound: float) -> int:
    """The most users up to whom no level was beyond the bound; 0 if the first one was."""
    held = 0
    for row in (row for row in rows if row["rate"] == name):
        if row["ttft_p95_s"] > bound:
            break
        held = row["users"]
    return held


def _accuracies(arguments: argparse.Namespace) -> dict[str, float]:
    """Per cent of the demo's questions that it answers rightly, asked one at a time."""
    items = list(islice(SYNTHETIC.items(None, arguments.questions), arguments.questions))
    low = Contender(DEFAULT_METHOD, 1 - Fraction(arguments.low))
    kinds = {"moving": Contender(AS_IS), "low": low}
    found = {}
    with _server(DEMO, arguments) as server, tempfile.TemporaryDirectory() as folder:
        asked = Server(server.url, "demo", concurrency=1)
        for name, kind in kinds.items():
            records = evaluate(asked, SYNTHETIC, items, [kind], Path(folder) / f"{name}.jsonl")
            found[name] = SYNTHETIC.summarize(records)["accuracy"]
    return found


if __name__ == "__main__":
    main()
