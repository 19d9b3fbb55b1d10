"""What rendering a picture by HF's image processor costs, with one torch thread and one a core.

    python benchmarks/rendering.py
    python benchmarks/rendering.py --size 1344 1008 --models demo demo-qwen2.5

Processor time of a whole process, so that threads which spin are counted; medians of renderings of
a decoded photograph. The two numbers of threads have a process each, and these take turns.
"""

from __future__ import annotations

import argparse
import base64
import io
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from statistics import median

import torch
from _chat import photographs
from PIL import Image
from transformers import AutoImageProcessor
from vllm_process import MODELS

_TURN = 20
"""Renderings of a turn."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["demo", "demo-qwen2.5"])
    parser.add_argument(
        "--size", type=int, nargs=2, default=[448, 336], metavar=("WIDTH", "HEIGHT")
    )
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    cores = os.cpu_count() or 1
    print(f"| model | 1 thread, ms | {cores} threads, ms | ratio |\n|---|---|---|---|")
    for model in arguments.models:
        alone, many = _compare(model, [1, cores], arguments.size, arguments.turns)
        print(f"| {model} | {alone:.2f} | {many:.2f} | {many / alone:.2f} |", flush=True)


def _compare(model: str, numbers: list[int], size: list[int], turns: int) -> list[float]:
    """Return the median milliseconds with each number of threads."""
    fresh = multiprocessing.get_context("spawn")
    pools = [ProcessPoolExecutor(1, fresh, torch.set_num_threads, (each,)) for each in numbers]
    times: list[list[float]] = [[] for _ in numbers]
    for _ in range(turns):
        for pool, found in zip(pools, times, strict=True):
            found += pool.submit(_render, model, size).result()
    for pool in pools:
        pool.shutdown()
    return [median(found) for found in times]


def _render(model: str, size: list[int]) -> list[float]:
    processor = AutoImageProcessor.from_pretrained(MODELS / model)
    encoded = next(iter(photographs(*size, seed=0))).split(",", 1)[1]
    image = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
    processor([image], return_tensors="pt")
    times = []
    for _ in range(_TURN):
        start = time.process_time()
        processor([image], return_tensors="pt")
        times.append(1e3 * (time.process_time() - start))
    return times


if __name__ == "__main__":
    main()
