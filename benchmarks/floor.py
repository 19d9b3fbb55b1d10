"""What it takes to look at a picture, and what is found: python benchmarks/floor.py

Photographs, screenshots and a chart of this repository, and pages drawn here, at several widths; on
one thread, as an API server does it. Milliseconds are the median of many looks at a decoded image.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median

from PIL import Image
from vtprune_evaluate.pages import draw_page

from vllm_pruner.picture import measure

ROOT = Path(__file__).parents[1]
FILES = [
    *sorted((ROOT / "assets" / "photos").glob("*.jpg")),
    *(ROOT / "assets" / f"{name}.png" for name in ("playground", "loadtest")),
    ROOT / "benchmarks" / "results" / "accuracy-demo.png",
]


def pictures(width: int) -> dict[str, Image.Image]:
    """By name, enlarged or shrunk to a width."""
    found = {file.name: Image.open(file).convert("RGB") for file in FILES}
    found["a page"] = Image.fromarray(draw_page(7, 0).pixels)
    return {
        name: image.resize((width, max(1, width * image.height // image.width)), 3)
        for name, image in found.items()
    }


def milliseconds(image: Image.Image, looks: int) -> float:
    """The median time of a look."""
    times = []
    for _ in range(looks):
        start = time.perf_counter()
        measure(image)
        times.append(1e3 * (time.perf_counter() - start))
    return median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=[336, 1024, 4096])
    parser.add_argument("--looks", type=int, default=50)
    arguments = parser.parse_args()
    print("| width | picture | print | plain | ms |\n|---|---|---|---|---|")
    for width in arguments.widths:
        for name, image in pictures(width).items():
            seen, took = measure(image), milliseconds(image, arguments.looks)
            print(f"| {width} | {name} | {seen.text:.3f} | {seen.plain:.3f} | {took:.2f} |")


if __name__ == "__main__":
    main()
