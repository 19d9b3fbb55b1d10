"""What is read of images of several sizes in one sequence, against a loop over their tokens."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

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
