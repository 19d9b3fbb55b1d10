"""Count the rounds of `dedup`'s kernel and the passes of its loops, without a GPU.

    PYTHONPATH=environment .venv/bin/python benchmarks/dedup_rounds.py

What a round takes depends on the picture: on how many rows have none of their listed neighbours in
b any more (`dedup_triton`). Rows: the five tight clusters of `benchmarks/kernels.py`, and features
that are smooth over a picture, 544 rows to 32. The passes are those of the loops that
`benchmarks/sass.py dedup` prints, in its order, which a scheduler of an H200 issues twice, for two
warps each; the last column is their sum. It is a bound: a pass may skip some instructions.
"""

from __future__ import annotations

from typing import Any

import sass
import torch
from _kernel_cases import CLUSTERED, STEP
from _machine import describe
from greedy_rounds import smooth
from vtprune_kernels import cosine_gram, dedup
from vtprune_kernels.dedup_triton import BLOCK, BLOCK_ROWS
from vtprune_kernels.nearest_rows_triton import NEAREST
from vtprune_kernels.spec import all_specs, features

ROWS, KEEP = 544, 32
LOOPS = (
    *("first list", "rounds", "blocks of a", "looks", "parts of b", "matches ranked"),
    *("blocks ordered", "blocks bisected", "rows left", "rows written"),
)
"""Of `_dedup_kernel`, as they begin: a line of `sass.py` each."""


def main() -> None:
    """Print a table of passes, and what a scheduler issues for them at most."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # a step is too short for two
    print(describe())
    (spec,) = [spec for spec in all_specs() if spec.id == "dedup"]
    kernel = sass.compiled(spec, 90)[-1]
    held = [loop.own.total() for loop in sass.loops(*sass.disassembled(kernel.asm["cubin"]))]
    if len(held) != len(LOOPS):
        raise SystemExit(f"the kernel has {len(held)} loops, {len(LOOPS)} are known: {LOOPS}")
    names = " | ".join(LOOPS)
    print(f"| rows | rounds that look | {names} | instructions |\n|---{'|---' * 12}|")
    for what, rows in pictures().items():
        looking, counted = passes(cosine_gram(rows[None])[0], KEEP, STEP)
        issued = sum(a * b for a, b in zip(held, counted, strict=True)) * BLOCK // 128
        print(f"| {what} | {looking} | {' | '.join(map(str, counted))} | {issued:,} |")


def pictures() -> dict[str, torch.Tensor]:
    """Return rows `[544, channels]` by their kind."""
    clusters = features(CLUSTERED, (1, ROWS, 1024), torch.bfloat16, "cpu")[0]
    return {"five tight clusters": clusters, "smooth": smooth(ROWS)}


def passes(gram: torch.Tensor, keep: int, step: int) -> tuple[int, list[int]]:
    """Remove rows as the kernel does; return in how many rounds some row is looked up in b, and how
    often each of `LOOPS` is passed.

    Raises:
        SystemExit: other rows are left than `dedup` leaves.
    """
    rows = len(gram)
    others = gram.clone().fill_diagonal_(-torch.inf)
    near = others.argsort(dim=1, descending=True, stable=True)[:, :NEAREST]
    alive = torch.arange(rows)
    looking, total = 0, [0] * len(LOOPS)
    total[0] = total[-1] = _parts(rows, BLOCK_ROWS)
    while (length := len(alive)) > keep:
        a, b = alive[0::2], alive[1::2]
        in_b = torch.zeros(rows, dtype=torch.bool).index_fill_(0, b, True)
        alone = ~in_b[near[a]].any(dim=1)
        blocks = _parts(len(a), BLOCK)
        looks = sum(_parts(int(block.sum()), 8) for block in alone.split(BLOCK))
        looking += looks > 0
        ordered = blocks if blocks > 1 else 0
        ranked = sum(_parts(len(block), 32) for block in a.split(BLOCK))
        each = (1, blocks, looks, looks * _parts(len(b), 128), ranked, ordered, ordered * blocks)
        total[1:8] = [old + new for old, new in zip(total[1:8], each, strict=True)]
        best = gram[a][:, b].amax(dim=1)
        order = best.argsort(descending=True, stable=True)
        alive = torch.cat([a[order[min(step, length - keep, len(a)) :]], b])
    total[8] = _parts(keep, BLOCK_ROWS)
    if not torch.equal(alive.sort().values, dedup(gram[None], keep, step)[0]):
        raise SystemExit("other rows are left than `dedup` leaves")
    return looking, total


def _parts(number: int, size: int) -> Any:
    return -(-number // size)


if __name__ == "__main__":
    main()
