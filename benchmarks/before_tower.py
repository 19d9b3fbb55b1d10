"""What an image's rows cost where tokens are chosen before the tower, beside behind it.

    python benchmarks/before_tower.py
    python benchmarks/before_tower.py --model demo-qwen3 --side 896 --keep 1/2 1/4

Processor time of `embed_multimodal`, tower and selection together, for one picture that nothing has
cached: unpruned, by `vispruner`, which reads the tower's attention, and by `pixels`. Calls take
turns; medians. The weights are random and the tower as wide as Qwen2.5-VL's, with four layers.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from statistics import median
from typing import Any

import torch
from pruned_model import picture_batch, pruned_model

METHODS = ("vispruner", "pixels")
_WIDE = {"hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo-qwen2.5")
    parser.add_argument("--side", type=int, nargs="+", default=[448, 672])
    parser.add_argument(
        "--keep", type=Fraction, nargs="+", default=[Fraction(1, 2), Fraction(1, 4)]
    )
    parser.add_argument("--turns", type=int, default=7)
    arguments = parser.parse_args()
    print("| picture | kept | unpruned, ms | " + " | ".join(f"`{name}`" for name in METHODS) + " |")
    print("|---|---|---|" + "---|" * len(METHODS))
    with _model(arguments.model) as (config, model):
        for side in arguments.side:
            for keep in arguments.keep:
                _row(config, model, side, keep, arguments.turns)


@contextmanager
def _model(checkpoint: str) -> Iterator[Any]:
    vision = {"vision_config": _WIDE}
    flags = {"load_format": "dummy", "dtype": "float32", "hf_overrides": vision}
    with pruned_model(checkpoint, {"feature_cache_mb": 0}, **flags) as made, torch.inference_mode():
        yield made


def _row(config: Any, model: Any, side: int, keep: Fraction, turns: int) -> None:
    settings = [{"rate": 0.0}]
    settings += [{"method": name, "rate": float(1 - keep), "floor": "off"} for name in METHODS]
    times: list[list[float]] = [[] for _ in settings]
    for turn in range(-1, turns):
        for each, found in zip(settings, times, strict=True):
            size = {"shortest_edge": 3136, "longest_edge": side**2}
            batch = picture_batch(config, [(side, side)], (turn + 1,), each, size=size)
            start = time.process_time()
            model.embed_multimodal(**batch)
            found += [1e3 * (time.process_time() - start)] * (turn >= 0)
    whole, *pruned = map(median, times)
    ratios = " | ".join(f"{each / whole:.2f}" for each in pruned)
    print(f"| {side} x {side} | {keep} | {whole:.0f} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
