"""What decoding a JPEG into an array costs, by Pillow and by libjpeg-turbo (`prompt.turbo`).

    python benchmarks/decoding.py
    python benchmarks/decoding.py --sizes 448x336 4032x3024

Processor time of this thread; medians over new photographs, both decoders in turn. Pillow's part is
to open and decode a file and copy its pixels to an array, as HF's image processors have them;
turbo's is to open the file by Pillow and decode it into an array.
"""

from __future__ import annotations

import argparse
import base64
import io
import itertools
import time
from collections.abc import Callable
from statistics import median

import numpy as np
from _chat import photographs
from PIL import Image

from vllm_pruner.prompt import turbo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["448x336", "1344x1008", "2016x1512"])
    parser.add_argument("--pictures", type=int, default=40)
    arguments = parser.parse_args()
    turbo.turn_on()
    print("| size | kB | Pillow, ms | turbo, ms | ratio |\n|---|---|---|---|---|")
    for size in arguments.sizes:
        width, height = map(int, size.split("x"))
        urls = itertools.islice(photographs(width, height), arguments.pictures)
        files = [base64.b64decode(url.split(",", 1)[1]) for url in urls]
        slow, fast = (median(found) for found in zip(*map(_times, files), strict=True))
        kilobytes = sum(map(len, files)) / len(files) / 1000
        print(f"| {size} | {kilobytes:.0f} | {slow:.2f} | {fast:.2f} | {fast / slow:.2f} |")


def _times(data: bytes) -> tuple[float, float]:
    return _milliseconds(_by_pillow, data), _milliseconds(_by_turbo, data)


def _milliseconds(decode: Callable[[bytes], object], data: bytes) -> float:
    start = time.thread_time()
    decode(data)
    return 1e3 * (time.thread_time() - start)


def _by_pillow(data: bytes) -> object:
    return np.array(Image.open(io.BytesIO(data)))


def _by_turbo(data: bytes) -> object:
    image = Image.open(io.BytesIO(data))
    if not turbo.decode(image, data):
        raise RuntimeError("not decoded by libjpeg-turbo")
    return image


if __name__ == "__main__":
    main()
