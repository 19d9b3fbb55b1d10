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
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from _chat import closed_load, image_body, photographs, text_body
from _machine import describe
from _serving import Contender, compare, milliseconds_inside, print_table, search_path
from vllm_process import VllmProcess

RESULTS = Path(__file__).parent / "results" / "serve-cpu.jsonl"


def main() -> None:
    """Run, print the tables and append them to the results."""
    arguments = _arguments()
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = {name: _server(stack, logs, name, arguments) for name in ("stock", "vtprune")}
        rows = [row for level in arguments.concurrency for row in _level(level, servers, arguments)]
        costs = _costs(servers["vtprune"], arguments)
    print_table(rows)
    print("\nPer image in the pruned server: " + json.dumps(costs))
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
    parser.add_argument("--dtype", default="float32", help="bfloat16 wants AVX-512")
    parser.add_argument("--output-tokens", type=int, default=16)
    parser.add_argument(
        "--step-tokens", type=int, help="vLLM's --max-num-batched-tokens, for all contenders"
    )
    return parser.parse_args()


def _server(stack: ExitStack, logs: Path, name: str, arguments: argparse.Namespace) -> VllmProcess:
    print(f"starting {name} ...", flush=True)
    flags = ["--dtype", arguments.dtype, "--max-num-seqs", "64"]
    if arguments.step_tokens:
        flags += ["--max-num-batched-tokens", str(arguments.step_tokens)]
    if name == "vtprune":
        flags += ["--plugin", "vtprune", "--prune-tokens", str(arguments.keep)]
        flags += ["--worker-extension-cls", "worker_timer.WorkerTimer"]
    return stack.enter_context(
        VllmProcess(logs / f"{name}.log", "bench", *flags, PYTHONPATH=search_path())
    )


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

    contenders = [
        Contender("stock", servers["stock"], images),
        Contender("vtprune", servers["vtprune"], images),
        Contender("text-only", servers["stock"], texts),
    ]
    return compare(contenders, concurrency, arguments.requests, arguments.rounds)


def _words(url: str, prompt: int, output_tokens: int, choose: random.Random) -> int:
    """How many random digits make a text prompt as long as the pruned one."""
    lengths = [
        closed_load(url, [text_body(words, output_tokens, choose)], 1)[0][0].prompt_tokens
        for words in (10, 20)
    ]
    per_word = (lengths[1] - lengths[0]) / 10
    return max(1, round(10 + (prompt - lengths[0]) / per_word))


def _costs(server: VllmProcess, arguments: argparse.Namespace) -> dict[str, float]:
    """Milliseconds per image inside the pruned server, at eight clients."""
    from transformers import AutoProcessor  # slow to import, and only needed here
    from vllm_process import MODELS

    views = photographs(seed=1000)
    bodies = [image_body(next(views), arguments.output_tokens) for _ in range(32)]
    costs = milliseconds_inside(server, bodies, 8)
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


if __name__ == "__main__":
    main()
