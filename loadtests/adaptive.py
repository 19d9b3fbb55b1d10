"""A rate that follows the load against two that do not, on a ramp of users; and what it costs.

    make loadtest-adaptive                    about ten minutes on two cores
    make loadtest-adaptive ARGS="--users 1 32 --seconds 20"

Three servers of one model take the same ramp, one after the other: one with the low rate, one with
the high rate, one that moves between them (`--prune-rate-under-load`). For each the table says up
to how many users the 95th percentile of the time to first token stays within the bound, which is
a multiple of the low rate's median with one user. Then the demo LLaVA, which was trained to answer,
is asked questions one at a time under the low rate and the moving one: at low load their
accuracies have to be the same.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import urllib.request
from itertools import islice
from pathlib import Path
from typing import Any

from _load import Load, answers
from _machine import describe
from _summary import summary
from vllm_process import VllmProcess
from vtprune_evaluate.client import Server
from vtprune_evaluate.contender import AS_IS, Contender
from vtprune_evaluate.datasets.synthetic import SYNTHETIC
from vtprune_evaluate.run import evaluate

ROOT = Path(__file__).parents[1]
DEMO = str(ROOT / "demo" / "llava")


def main() -> None:
    """Measure, print, and write the figures down."""
    arguments = _arguments()
    rows: list[dict[str, Any]] = []
    for name in _flags(arguments):
        rows += _ramp(name, arguments)
    bound = arguments.times * rows[0]["ttft_p50_s"]
    held = {name: _held(rows, name, bound) for name in _flags(arguments)}
    accuracy = {name: _accuracy(name, arguments) for name in ("low", "moving")}
    for name, users in held.items():
        print(f"{name:7} first token within {bound:.2f} s (p95) up to {users} users")
    print(f"accuracy of the demo, one question at a time: {accuracy}")
    settings = {**vars(arguments), "output": None}
    result = {"machine": describe(), "settings": settings, "bound_s": bound, "held": held}
    result |= {"accuracy": accuracy, "rows": rows}
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--low", type=float, default=0.5)
    parser.add_argument("--high", type=float, default=0.9)
    parser.add_argument("--load", default='{"waiting": 2, "seconds": 5}', help="--prune-load")
    parser.add_argument("--users", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--seconds", type=float, default=15.0, help="at each number of users")
    parser.add_argument("--times", type=float, default=8.0, help="the bound, in unloaded medians")
    parser.add_argument("--questions", type=int, default=200, help="for accuracy")
    parser.add_argument("--checkpoint", default="bench-small", help="a folder of .cache/models")
    results = Path(__file__).parent / "results"
    parser.add_argument("--output", type=Path, default=results / "adaptive.json")
    return parser.parse_args()


def _flags(arguments: argparse.Namespace) -> dict[str, list[str]]:
    """The flags of each server."""
    low, high = (["--prune-rate", str(rate)] for rate in (arguments.low, arguments.high))
    moves = ["--prune-rate-under-load", str(arguments.high), "--prune-load", arguments.load]
    return {"low": low, "high": high, "moving": [*low, *moves]}


def _server(name: str, checkpoint: str, folder: str, arguments: argparse.Namespace) -> VllmProcess:
    flags = ["--dtype", "float32", "--max-num-seqs", "64", "--enforce-eager"]
    flags += ["--max-num-batched-tokens", "1024", "--plugin", "vtprune"]
    log = Path(folder) / f"{name}.log"
    return VllmProcess(log, checkpoint, *flags, *_flags(arguments)[name])


def _ramp(name: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of one server, a level each; the levels follow each other without a pause."""
    rows = []
    with (
        tempfile.TemporaryDirectory() as folder,
        _server(name, arguments.checkpoint, folder, arguments) as server,
    ):
        answers(Load("single_image", users=2, seconds=2, seed=999), server.url)
        for users in arguments.users:
            load = Load("single_image", users=users, seconds=arguments.seconds, seed=users)
            row = {"server": name, "users": users, **summary(answers(load, server.url), 0.0)}
            row["rate"] = _rate(server.url)
            rows.append(row)
            print(
                f"{name:7} {users:3} users {row['requests_per_s']:6.2f}/s  TTFT p50 "
                f"{row['ttft_p50_s']:6.2f} s  p95 {row['ttft_p95_s']:6.2f} s  "
                f"{row['prompt_tokens']:4.0f} prompt tokens",
                flush=True,
            )
    return rows


def _rate(url: str) -> float | None:
    """The server's rate after a level, where it moves."""
    with urllib.request.urlopen(f"{url}/metrics") as response:
        lines = response.read().decode().splitlines()
    shown = [line for line in lines if line.startswith("vtprune_server_rate")]
    return float(shown[0].rpartition(" ")[2]) if shown else None


def _held(rows: list[dict[str, Any]], name: str, bound: float) -> int:
    """The most users up to whom no level was beyond the bound; 0 if the first one was."""
    held = 0
    for row in (row for row in rows if row["server"] == name):
        if row["ttft_p95_s"] > bound:
            break
        held = row["users"]
    return held


def _accuracy(name: str, arguments: argparse.Namespace) -> float:
    """Per cent of the demo's questions that it answers rightly, asked one at a time."""
    items = list(islice(SYNTHETIC.items(None, arguments.questions), arguments.questions))
    with (
        tempfile.TemporaryDirectory() as folder,
        _server(name, DEMO, folder, arguments) as server,
    ):
        asked = Server(server.url, "demo", concurrency=1)
        file = Path(folder) / "answers.jsonl"
        records = evaluate(asked, SYNTHETIC, items, [Contender(AS_IS)], file)
    return SYNTHETIC.summarize(records)["accuracy"]


if __name__ == "__main__":
    main()
