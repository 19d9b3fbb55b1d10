"""Count what the loops of a kernel's machine code hold, without a GPU.

    export PYTHONPATH=environment
    python benchmarks/sass.py dedup                     every kernel that the operator launches
    python benchmarks/sass.py dedup --capability 100    for another GPU than an H200
    python benchmarks/sass.py dedup --rows 2880         another size than LLaVA-1.5's 576

A line is a loop: the instructions of one pass that are in no inner loop, and which of them are
barriers, reads or writes of memory, and exchanges between threads. A pass may skip some of them.
A scheduler, of four, issues this times the passes times a quarter of the program's warps.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from absent_gpu import compiled_for
from vtprune_kernels.spec import Spec, all_specs

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
SHOWN = ("BAR", "LDG", "STG", "LDS", "STS", "SHFL", "REDUX", "HGMMA")


class Loop(NamedTuple):
    """First and last instruction, the last one jumps back; how many loops are around it; and how
    many instructions of each name one pass has outside of inner loops."""

    first: int
    last: int
    depth: int
    own: Counter[str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("operator", help="as in the table of kernels/README.md, with its case")
    parser.add_argument("--capability", type=int, default=90, help="times ten (default 90)")
    parser.add_argument("--rows", type=int, default=576, help="of an image (default 576)")
    arguments = parser.parse_args()
    (spec,) = [spec for spec in all_specs() if spec.id == arguments.operator]
    for kernel in compiled(spec, arguments.capability, arguments.rows):
        warps = kernel.metadata.num_warps
        print(f"{kernel.metadata.name}, {warps} warps, Triton {triton.__version__}")
        for line in described(*disassembled(kernel.asm["cubin"])):
            print(line)


def compiled(spec: Spec, capability: int, rows: int = 576) -> list[Any]:
    """Launch the operator on production shapes, on a GPU that only names itself."""
    with compiled_for(f"sm_{capability}", device=capability) as kernels:
        spec.launcher(**spec.make_inputs("zero", rows, torch.bfloat16, "cpu", large=True))
    return kernels


def disassembled(program: bytes) -> tuple[list[str], dict[str, int]]:
    """Return the instructions, and at which of them each label stands."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(program)
        file.flush()
        command = [TOOLS / "nvdisasm", "--print-code", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    instructions: list[str] = []
    labels: dict[str, int] = {}
    for line in text.splitlines():
        if found := re.match(r"(\.L_x_\d+):", line):
            labels[found[1]] = len(instructions)
        elif found := re.search(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?(\S.*?);", line):
            instructions.append(found[1])
    return instructions, labels


def described(instructions: list[str], labels: dict[str, int]) -> list[str]:
    """One line a loop, inner ones indented."""
    lines = []
    for loop in loops(instructions, labels):
        some = ", ".join(f"{loop.own[name]} {name}" for name in SHOWN if loop.own[name])
        lines.append(
            f"{'  ' * loop.depth}  {loop.first}-{loop.last}: {loop.own.total()} instructions; "
            f"{some or 'no memory'}"
        )
    return lines


def loops(instructions: list[str], labels: dict[str, int]) -> list[Loop]:
    """Return the loops in the order in which they begin."""
    ends: dict[int, int] = {}
    for place, instruction in enumerate(instructions):
        target = labels.get("".join(re.findall(r"^BRA.*(\.L_x_\d+)", instruction)))
        if target is not None and target < place:
            ends[target] = place
    found = []
    for first, last in sorted(ends.items()):
        inner = [(a, b) for a, b in ends.items() if first < a and b < last]
        own = Counter(
            instructions[place].split()[0].split(".")[0]
            for place in range(first, last + 1)
            if not any(a <= place <= b for a, b in inner)
        )
        depth = sum(a < first and last < b for a, b in ends.items())
        found.append(Loop(first, last, depth, own))
    return found


if __name__ == "__main__":
    main()
