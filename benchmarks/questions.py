r"""Which method for which traffic: new images, and many questions about known ones.

    make bench-questions ARGS="--eager"
    make bench-questions ARGS="--eager --model bench-clip-l --workloads fits --images 4 \
        --concurrency 4"

Each takes 20 minutes on two cores.

Four contenders take turns at the same requests within every round, so that a noisy machine disturbs
all of them alike: `stock` vLLM, `vispruner`, and `adafv` with and without the feature cache, each
keeping 64 of 576 visual tokens. Three workloads:

- `new`: every image is new;
- `fits`: eight questions about each image, in turn over all images; the KV cache holds them all;
- `overflows`: the same, with a KV cache that has evicted stock's image before its next question:
  blocks for half of stock's prompts, but at least as many as the running requests need.

Cache hits are read from each server's own counters, so a row shows why it is fast. The value of the
feature cache depends on the cost of the tower relative to the decoder, so the tower's share is
measured in the same run: `bench-small` has a light tower, `bench-clip-l` has CLIP-L's. Rows are
appended to benchmarks/results/questions-cpu.jsonl.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from _chat import Timing, closed_load, image_body, photographs
from _machine import describe
from _question_table import table
from vllm_process import VllmProcess

RESULTS = Path(__file__).parent / "results" / "questions-cpu.jsonl"
WORKLOADS = ("new", "fits", "overflows")
BLOCK, STOCK_PROMPT = 32, 640
"""Tokens per KV block, and in stock's prompt, rounded up to whole blocks. The default on a GPU is
16; the CPU backend requires multiples of 32, and no pruned prompt would fill a block of its
default, 128."""

COUNTERS = (
    "vllm:prefix_cache_queries_total",
    "vllm:prefix_cache_hits_total",
    "vtprune_feature_cache_hits_total",
    "vtprune_feature_cache_misses_total",
    "vtprune_tower_seconds_total",
    "vtprune_selection_seconds_total",
)


def main() -> None:
    """Run, print the tables and append them to the results."""
    arguments = _arguments()
    rows: list[dict[str, Any]] = []
    for workloads, blocks in _groups(arguments):
        with ExitStack() as stack:
            logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            servers = {
                name: _server(stack, logs, name, blocks, arguments)
                for name in _contenders(arguments)
            }
            for workload in workloads:
                rows += _workload(workload, servers, arguments)
    print(table(rows))
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps({**describe(), **vars(arguments), "rows": rows}) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="bench-small", help="a folder of .cache/models")
    parser.add_argument("--dtype", default="float32", help="bfloat16 needs AVX-512")
    parser.add_argument("--workloads", nargs="+", default=list(WORKLOADS), choices=WORKLOADS)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--images", type=int, default=20, help="in workloads with many questions")
    parser.add_argument("--questions", type=int, default=8, help="per image")
    parser.add_argument("--new-images", type=int, default=32, help="in the workload new")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--keep", type=int, default=64)
    parser.add_argument("--output-tokens", type=int, default=8)
    parser.add_argument("--eager", action="store_true", help="start all servers --enforce-eager")
    return parser.parse_args()


def _contenders(arguments: argparse.Namespace) -> dict[str, list[str]]:
    prune = ["--plugin", "vtprune", "--prune-tokens", str(arguments.keep)]
    adafv = [*prune, "--prune-method", "adafv"]
    return {
        "stock": [],
        "vispruner": [*prune, "--prune-method", "vispruner"],
        "adafv": adafv,
        "adafv, no feature cache": [*adafv, "--prune-feature-cache-mb", "0"],
    }


def _groups(arguments: argparse.Namespace) -> list[tuple[list[str], int]]:
    """Return groups of workloads that share servers, with the servers' numbers of KV blocks."""
    per_prompt = STOCK_PROMPT // BLOCK
    everything = (arguments.images + arguments.concurrency) * per_prompt
    half = max(arguments.images * per_prompt // 2, arguments.concurrency * per_prompt)
    known = [name for name in arguments.workloads if name != "overflows"]
    groups = [(known, everything), (["overflows"], half)]
    return [group for group in groups if set(group[0]) & set(arguments.workloads)]


def _server(
    stack: ExitStack, logs: Path, name: str, blocks: int, arguments: argparse.Namespace
) -> VllmProcess:
    print(f"starting {name} with {blocks} KV blocks ...", flush=True)
    flags = ["--dtype", arguments.dtype, "--max-num-seqs", "64"]
    flags += ["--num-gpu-blocks-override", str(blocks), "--block-size", str(BLOCK)]
    flags += ["--limit-mm-per-prompt", '{"image": 1}']
    if arguments.eager:
        flags += ["--enforce-eager"]
    log = logs / f"{name.replace(', ', '-').replace(' ', '-')}.log"
    process = VllmProcess(log, arguments.model, *flags, *_contenders(arguments)[name])
    return stack.enter_context(process)


def _workload(
    workload: str, servers: dict[str, VllmProcess], arguments: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Yield one row per contender."""
    timings: dict[str, list[Timing]] = {name: [] for name in servers}
    seconds: dict[str, list[float]] = {name: [] for name in servers}
    counted = {name: dict.fromkeys(COUNTERS, 0.0) for name in servers}
    for round_ in range(arguments.rounds):
        for name, server in servers.items():
            if not round_:
                _warm_up(server, arguments)
            bodies = list(_bodies(workload, round_, arguments))  # the same for all
            before = _counters(server)
            answered, took = closed_load(server.url, bodies, arguments.concurrency)
            timings[name] += answered
            seconds[name].append(took)
            for counter, value in _counters(server).items():
                counted[name][counter] += value - before[counter]
    for name in servers:
        row = _row(workload, name, timings[name], seconds[name], counted[name])
        print(json.dumps(row), flush=True)
        yield row


def _bodies(workload: str, round_: int, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the requests of one round; no two rounds share an image."""
    views = photographs(
        seed=1 + 2 * round_ + (workload == "overflows") + 1000 * (workload == "new")
    )
    if workload == "new":
        for url in itertools.islice(views, arguments.new_images):
            yield image_body(url, arguments.output_tokens)
        return
    urls = list(itertools.islice(views, arguments.images))
    for number in range(arguments.questions):
        for url in urls:
            question = f"{number + 1}. What is in this picture, and what stands behind it?"
            yield image_body(url, arguments.output_tokens, question)


def _warm_up(server: VllmProcess, arguments: argparse.Namespace) -> None:
    views = itertools.islice(photographs(seed=12345), arguments.concurrency)
    bodies = [image_body(url, arguments.output_tokens) for url in views]
    closed_load(server.url, bodies, arguments.concurrency)


def _counters(server: VllmProcess) -> dict[str, float]:
    with urllib.request.urlopen(f"{server.url}/metrics") as response:
        lines = response.read().decode().splitlines()
    return {
        counter: sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(counter))
        for counter in COUNTERS
    }


def _row(
    workload: str,
    name: str,
    timings: list[Timing],
    seconds: list[float],
    counted: dict[str, float],
) -> dict[str, Any]:
    requests, queries = len(timings), counted["vllm:prefix_cache_queries_total"]
    return {
        "workload": workload,
        "contender": name,
        "requests": requests,
        "prompt_tokens": round(statistics.mean(timing.prompt_tokens for timing in timings)),
        "requests_per_s": round(requests / sum(seconds), 3),
        "ttft_p50_s": round(statistics.median(timing.first_token for timing in timings), 4),
        "prefix_hit_share": round(counted["vllm:prefix_cache_hits_total"] / queries, 3),
        "feature_hits": counted["vtprune_feature_cache_hits_total"],
        "feature_misses": counted["vtprune_feature_cache_misses_total"],
        "tower_ms": round(1e3 * counted["vtprune_tower_seconds_total"] / requests, 1),
        "selection_ms": round(1e3 * counted["vtprune_selection_seconds_total"] / requests, 1),
        "tower_share": round(counted["vtprune_tower_seconds_total"] / sum(seconds), 3),
    }


if __name__ == "__main__":
    main()
