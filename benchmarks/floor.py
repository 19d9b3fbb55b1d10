"""What examining a picture for print costs, and what it finds: python benchmarks/floor.py

Photographs, screenshots and a chart of this repository, and a drawn page, at several widths; in one
thread, as in an API server. Times are medians of many examinations of a decoded image.
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
    """Return the pictures by name, resized to a width."""
    found = {file.name: Image.open(file).convert("RGB") for file in FILES}
    found["a page"] = Image.fromarray(draw_page(7, 0).pixels)
    return {
        name: image.resize((width, max(1, width * image.height // image.width)), 3)
        for name, image in found.items()
    }


def milliseconds(image: Image.Image, looks: int) -> float:
    """Return the median time of an examination in milliseconds."""
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
