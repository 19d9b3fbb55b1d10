"""How well each method's kept tokens represent a photograph, without language model or question.

    make bench-set-quality
    make bench-set-quality ARGS="--photos DIR --keep 1/4 1/9"

The tower of demo/llava encodes every photograph and its four quarters, as crops. In its features:

    coverage    mean over all tokens of the highest cosine with a kept row
    redundancy  mean over kept rows of the highest cosine with another kept row

For methods that merge, the kept rows are the merged ones; `resize` selects nothing and is left out.
Methods that read a text get QUESTION, which asks for nothing in particular. Needs no server; the
table is benchmarks/results/set-quality.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import torch
from _demo_tower import DemoTower
from _machine import describe
from PIL import Image

import vllm_pruner
from vllm_pruner import methods

HERE = Path(__file__).resolve().parent
PHOTOS = HERE.parent / "assets" / "photos"
RESULTS = HERE / "results" / "set-quality.md"
QUESTION = "what do you see in this picture?"
Figures = tuple[float, float]


def pictures(folders: list[Path]) -> Iterator[Image.Image]:
    """Yield every photograph's largest central square, and the square's quarters."""
    for file in sorted(file for folder in folders for file in folder.glob("*.[jp][pn]g")):
        image = Image.open(file).convert("RGB")
        side = min(image.size) // 2 * 2
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((left, top, left + side, top + side))
        yield square
        for y in (0, side // 2):
            for x in (0, side // 2):
                yield square.crop((x, y, x + side // 2, y + side // 2))


def quality(features: torch.Tensor, rows: torch.Tensor) -> Figures:
    """Return coverage and redundancy of rows `[images, K, D]` for features `[images, N, D]`."""
    tokens, kept = (torch.nn.functional.normalize(t.double(), dim=-1) for t in (features, rows))
    covered = (tokens @ kept.mT).amax(dim=2).mean()
    among = kept @ kept.mT
    among.diagonal(dim1=1, dim2=2).fill_(-1.0)
    return covered.item(), among.amax(dim=2).mean().item()


@torch.inference_mode()
def measure(folders: list[Path], shares: list[Fraction]) -> dict[str, list[Figures]]:
    """Return, by method, the figures of each share."""
    tower = DemoTower()
    inputs = tower.see(list(pictures(folders)), QUESTION)
    total, found = inputs["features"].shape[1], {}
    for name in methods.names():
        if methods.get(name).shrink is None:
            found[name] = [
                quality(
                    inputs["features"],
                    vllm_pruner.prune(name, keep=int(total * share), **inputs)[1],
                )
                for share in shares
            ]
    return found


def table(found: dict[str, list[Figures]], shares: list[Fraction]) -> str:
    """Return a Markdown table, sorted by coverage at the first share, best first."""
    heads = [f"{what} {share}" for share in shares for what in ("coverage", "redundancy")]
    lines = ["| method | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|"]
    for name, figures in sorted(found.items(), key=lambda entry: -entry[1][0][0]):
        cells = [f"{value:.3f}" for pair in figures for value in pair]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, nargs="+", default=[PHOTOS], metavar="DIR")
    parser.add_argument(
        "--keep", type=Fraction, nargs="+", default=[Fraction(1, 9), Fraction(1, 16)]
    )
    parser.add_argument("--dry-run", action="store_true", help="print, but write no file")
    arguments = parser.parse_args()
    count = sum(1 for _ in pictures(arguments.photos))
    text = table(measure(arguments.photos, arguments.keep), arguments.keep)
    machine = describe()
    about = f"{count} pictures; {machine['date']}, commit {machine['commit']}, {machine['cpu']}"
    print(f"{text}\n\n{about}")
    if not arguments.dry_run:
        RESULTS.write_text(f"`make bench-set-quality`: {about}.\n\n{text}\n")


if __name__ == "__main__":
    main()
