"""What pruning gains in a real server: stock vLLM, vtprune, and the limit that pruning can reach.

    make bench-serve

Three contenders answer equally many requests in turn, within every round, so that a noisy machine
disturbs all of them alike:

- `stock`: vLLM without the plugin, one distinct photograph a request;
- `vtprune`: the same photographs, 64 of 576 visual tokens kept;
- `text-only`: stock vLLM, prompts without image that are as long as the pruned ones.

The limit has no image to decode, resize, send and encode, so a pruned server cannot reach it. What
lies between is measured inside the server of the same run: seconds per image in the tower and in
selection (`worker_timer.py`), and in the processor.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from _chat import Timing, closed_load, image_body, photographs, text_body
from _machine import describe
from vllm_process import VllmProcess

RESULTS = Path(__file__).parent / "results" / "serve-cpu.jsonl"
CONTENDERS = ("stock", "vtprune", "text-only")
Bodies = Callable[[int], list[dict[str, Any]]]


def main() -> None:
    """Run, print the tables and append them to the results."""
    arguments = _arguments()
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = {name: _server(stack, logs, name, arguments) for name in ("stock", "vtprune")}
        rows = [row for level in arguments.concurrency for row in _level(level, servers, arguments)]
        costs = _costs(servers["vtprune"], arguments)
    _print(rows, costs)
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        settings = vars(arguments)
        file.write(json.dumps({**describe(), **settings, "rows": rows, "costs": costs}) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--requests", type=int, default=4, help="per client, contender and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", type=int, default=64)
    parser.add_argument("--output-tokens", type=int, default=16)
    parser.add_argument(
        "--step-tokens", type=int, help="vLLM's --max-num-batched-tokens, for all contenders"
    )
    return parser.parse_args()


def _server(stack: ExitStack, logs: Path, name: str, arguments: argparse.Namespace) -> VllmProcess:
    print(f"starting {name} ...", flush=True)
    flags = ["--load-format", "dummy", "--max-num-seqs", "64"]
    if arguments.step_tokens:
        flags += ["--max-num-batched-tokens", str(arguments.step_tokens)]
    if name == "vtprune":
        flags += ["--plugin", "vtprune", "--prune-tokens", str(arguments.keep)]
        flags += ["--worker-extension-cls", "worker_timer.WorkerTimer"]
    here = str(Path(__file__).parent)
    return stack.enter_context(VllmProcess(logs / f"{name}.log", "bench", *flags, PYTHONPATH=here))


def _level(
    concurrency: int, servers: dict[str, VllmProcess], arguments: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """One row a contender, at one number of clients."""
    views, choose = photographs(seed=concurrency), random.Random(concurrency)
    probe = [image_body(next(views), arguments.output_tokens)]
    prompt = closed_load(servers["vtprune"].url, probe, 1)[0][0].prompt_tokens
    words = _words(servers["stock"].url, prompt, arguments.output_tokens, choose)

    def images(count: int) -> list[dict[str, Any]]:
        return [image_body(next(views), arguments.output_tokens) for _ in range(count)]

    def texts(count: int) -> list[dict[str, Any]]:
        return [text_body(words, arguments.output_tokens, choose) for _ in range(count)]

    make: dict[str, Bodies] = {"stock": images, "vtprune": images, "text-only": texts}
    timings: dict[str, list[Timing]] = {name: [] for name in CONTENDERS}
    rates: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for round_ in range(arguments.rounds + 1):
        for name in CONTENDERS:
            bodies = make[name](concurrency * (arguments.requests if round_ else 1))
            server = servers["vtprune" if name == "vtprune" else "stock"]
            answered, seconds = closed_load(server.url, bodies, concurrency)
            if round_:  # the first one warms up
                timings[name] += answered
                rates[name].append(len(answered) / seconds)
    for name in CONTENDERS:
        row = _row(name, concurrency, timings[name], rates[name])
        print(json.dumps(row), flush=True)
        yield row


def _words(url: str, prompt: int, output_tokens: int, choose: random.Random) -> int:
    """How many random digits make a text prompt as long as the pruned one."""
    lengths = [
        closed_load(url, [text_body(words, output_tokens, choose)], 1)[0][0].prompt_tokens
        for words in (10, 20)
    ]
    per_word = (lengths[1] - lengths[0]) / 10
    return max(1, round(10 + (prompt - lengths[0]) / per_word))


def _row(name: str, concurrency: int, timings: list[Timing], rates: list[float]) -> dict[str, Any]:
    first = sorted(timing.first_token for timing in timings)
    return {
        "contender": name,
        "concurrency": concurrency,
        "requests": len(timings),
        "prompt_tokens": round(statistics.mean(timing.prompt_tokens for timing in timings)),
        "requests_per_s": round(statistics.median(rates), 3),
        "ttft_p50_s": round(statistics.median(first), 4),
        "ttft_p95_s": round(first[int(0.95 * (len(first) - 1))], 4),
    }


def _costs(server: VllmProcess, arguments: argparse.Namespace) -> dict[str, float]:
    """Milliseconds per image inside the pruned server, at eight clients."""
    from transformers import AutoProcessor  # slow to import, and only needed here
    from vllm_process import MODELS

    _rpc(server, "start_timer")
    views = photographs(seed=1000)
    bodies = [image_body(next(views), arguments.output_tokens) for _ in range(32)]
    closed_load(server.url, bodies, 8)
    timed = _rpc(server, "read_timer")[0]
    costs = {f"{name}_ms": 1000 * seconds / len(bodies) for name, seconds in timed.items()}
    processor = AutoProcessor.from_pretrained(MODELS / "bench").image_processor
    costs["decode_and_resize_ms"] = 1000 * _processor_seconds(processor, views)
    return {name: round(value, 2) for name, value in costs.items()}


def _processor_seconds(processor: Any, views: Iterator[str]) -> float:
    import base64
    import io
    import time

    from PIL import Image

    seconds = []
    for _ in range(16):
        file = base64.b64decode(next(views).partition(",")[2])
        start = time.perf_counter()
        processor(images=Image.open(io.BytesIO(file)).convert("RGB"), return_tensors="pt")
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _rpc(server: VllmProcess, method: str) -> list[dict[str, float]]:
    request = urllib.request.Request(
        f"{server.url}/collective_rpc",
        json.dumps({"method": method}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        results: list[dict[str, float]] = json.load(response)["results"]
    return results


def _print(rows: list[dict[str, Any]], costs: dict[str, float]) -> None:
    print("\n| clients | contender | prompt | req/s | x stock | TTFT p50 | x stock | TTFT p95 |")
    print("|---|---|---|---|---|---|---|---|")
    by = {(row["concurrency"], row["contender"]): row for row in rows}
    for row in rows:
        stock = by[row["concurrency"], "stock"]
        faster = row["requests_per_s"] / stock["requests_per_s"]
        sooner = row["ttft_p50_s"] / stock["ttft_p50_s"]
        print(
            f"| {row['concurrency']} | {row['contender']} | {row['prompt_tokens']} "
            f"| {row['requests_per_s']:.2f} | {faster:.2f} "
            f"| {row['ttft_p50_s']:.3f} s | {sooner:.2f} | {row['ttft_p95_s']:.3f} s |"
        )
    print("\nPer image in the pruned server: " + json.dumps(costs))


if __name__ == "__main__":
    main()
