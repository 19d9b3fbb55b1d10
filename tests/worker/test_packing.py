"""What is read of images of several sizes in one sequence, against a loop over their tokens."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vllm_pruner.methods.base import Need
from vllm_pruner.worker.packing import Packing

HEADS, SIZE, GROUP = 4, 8, 4
TOKENS = (3, 5)


@pytest.mark.parametrize("heads_of_keys", [HEADS, 2, 1])
@pytest.mark.parametrize("in_order", [True, False])
def test_a_token_has_the_keys_and_the_attention_of_its_own_patches(
    in_order: bool, heads_of_keys: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    patches = GROUP * sum(TOKENS)
    query = torch.randn(1, patches, HEADS, SIZE, generator=generator)
    key = torch.randn(1, patches, heads_of_keys, SIZE, generator=generator)
    token_of_patch = torch.arange(sum(TOKENS)).repeat_interleave(GROUP)
    if not in_order:  # within its image a patch may be anywhere
        parts = token_of_patch.split([GROUP * count for count in TOKENS])
        mixed = [part[torch.randperm(len(part), generator=generator)] for part in parts]
        token_of_patch = torch.cat(mixed)
    packing = Packing.of(
        [GROUP * count for count in TOKENS],
        GROUP,
        None if in_order else token_of_patch,
        torch.device("cpu"),
    )
    layer = SimpleNamespace(num_heads=HEADS, scale=SIZE**-0.5)
    keys = packing.read(Need.KEYS, layer, query, key)
    received = packing.read(Need.IMPORTANCE, layer, query, key)
    scores = torch.rand(patches, generator=generator)
    sums = torch.zeros(sum(TOKENS)).index_add_(0, token_of_patch, scores)
    assert torch.allclose(packing.sums(scores.unsqueeze(1)), sums)
    start = 0
    for count in TOKENS:
        stop = start + GROUP * count
        column = torch.zeros(stop - start)
        for head in range(HEADS):
            of_key = head // (HEADS // heads_of_keys)
            logits = query[0, start:stop, head] @ key[0, start:stop, of_key].T * SIZE**-0.5
            column += logits.softmax(dim=-1).mean(dim=0) / HEADS
        for token in range(start // GROUP, stop // GROUP):
            own = token_of_patch == token
            assert torch.allclose(keys[token], key[0, own].mean(dim=(0, 1)), atol=1e-6)
            assert received[token] == pytest.approx(float(column[own[start:stop]].sum()), abs=1e-6)
        start = stop


@pytest.mark.parametrize("merge", [(1, 1), (2, 2), (3, 1)])
def test_the_patches_of_a_token_are_a_square_of_the_raster(merge: tuple[int, int]) -> None:
    (down, across), grids = merge, [(2, 3), (1, 4), (5, 2)]
    packing = Packing.of_rasters(grids, merge, torch.device("cpu"))
    wide = [columns * across for _, columns in grids]
    patches = [
        (image, row, column)
        for image, (rows, _) in enumerate(grids)
        for row in range(rows * down)
        for column in range(wide[image])
    ]
    tokens = [
        [(image, row * down + r, column * across + c) for r in range(down) for c in range(across)]
        for image, (rows, columns) in enumerate(grids)
        for row in range(rows)
        for column in range(columns)
    ]
    grouped = packing.by_token(torch.tensor(patches))
    assert grouped.tolist() == [[list(patch) for patch in token] for token in tokens]
    lengths = [rows * columns * down * across for rows, columns in grids]
    assert packing.cu_seqlens.diff().tolist() == lengths and packing.longest == max(lengths)


class _Counted(TorchDispatchMode):
    number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += 1
        return func(*args, **(kwargs or {}))


def test_many_rasters_are_packed_by_as_many_launches_as_two() -> None:
    """And are sorted once, whatever is read of them."""

    def launched(images: int, reads: int) -> int:
        with _Counted() as counted:
            packing = Packing.of_rasters([(2, 3)] * images, (2, 2), torch.device("cpu"))
            for _ in range(reads):
                packing.by_token(torch.empty(24 * images))
        return counted.number

    assert launched(2, 0) == launched(40, 0)
    assert launched(2, 3) - launched(2, 2) == launched(2, 2) - launched(2, 1) <= 3
