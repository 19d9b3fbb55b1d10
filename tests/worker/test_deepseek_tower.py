"""DeepSeek-V4's tower beside vLLM's own passes of it, and its columns beside their formulas: tokens
at an edge have fewer patches than the others."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import torch
from pruned_model import pruned_model
from tower_kernels import run_tower_kernels_on_a_cpu

from vllm_pruner.compat.versions import at_least
from vllm_pruner.layout.paired_rows import PairedRows
from vllm_pruner.methods.base import Need
from vllm_pruner.tower import FEATURES, EncoderImage

pytestmark = pytest.mark.skipif(not at_least((0, 32)), reason="vLLM 0.31 has no such tower")

SIZES = [(6, 9), (4, 7), (1, 1), (2, 12)]
"""Rows and columns of patches: whole tokens, edges on two sides, one patch, an edge below."""

SIDE = 3


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    run_tower_kernels_on_a_cpu()
    flags = {"dtype": "float32", "enforce_eager": True, "mm_encoder_only": True}
    with pruned_model("demo-deepseek-v4", {}, **flags) as (_, made):
        yield made


def _images() -> list[EncoderImage]:
    draw = torch.Generator().manual_seed(0)
    return [
        EncoderImage(
            torch.randn(high * wide, 3, 14, 14, generator=draw),
            PairedRows(-(-high // SIDE), -(-wide // SIDE), high=high, wide=wide),
        )
        for high, wide in SIZES
    ]


def _tokens(values: torch.Tensor) -> list[torch.Tensor]:
    """The values of each token's patches, given those of all patches."""
    parts = values.split([high * wide for high, wide in SIZES])
    found = []
    for part, (high, wide) in zip(parts, SIZES, strict=True):
        grid = part.unflatten(0, (high, wide))
        corners = product(range(0, high, SIDE), range(0, wide, SIDE))
        found += [
            grid[row : row + SIDE, column : column + SIDE].flatten(0, 1) for row, column in corners
        ]
    return found


@torch.inference_mode()
def test_both_halves_are_what_vllm_makes_of_each_picture(model: Any) -> None:
    rows = model.tower.project(model.tower.encode(_images(), frozenset())[FEATURES])
    expected = [
        model.aligner(model.vision(image.pixels, *size), *size)
        for image, size in zip(_images(), SIZES, strict=True)
    ]
    torch.testing.assert_close(rows, torch.cat(expected), atol=1e-4, rtol=1e-4)
    width, dtype = model.tower.columns(frozenset())[FEATURES]
    assert (width, dtype) == (SIDE * SIDE * 128, torch.float32)


@torch.inference_mode()
def test_columns_are_of_the_patches_that_a_token_has(model: Any) -> None:
    queries: list[torch.Tensor] = []
    keys: list[torch.Tensor] = []
    norms: list[torch.Tensor] = []
    layer = model.vision.blocks[-1].attn.attn

    def look(_: Any, given: tuple[Any, ...]) -> None:
        queries.append(given[0][0])
        keys.append(given[1][0])

    def measure(_: Any, given: tuple[Any, ...]) -> None:
        norms.append(given[0].square().sum(dim=-1).sqrt())

    hooks = [
        layer.register_forward_pre_hook(look),
        model.vision.norm.register_forward_pre_hook(measure),
    ]
    received = []
    for image, size in zip(_images(), SIZES, strict=True):  # as stock vLLM encodes them
        model.vision(image.pixels, *size)
        logits = torch.einsum("qhd,khd->hqk", queries[-1], keys[-1]) * layer.scale
        received.append(logits.softmax(dim=-1).mean(dim=(0, 1)))
    for hook in hooks:
        hook.remove()
    needs = frozenset({Need.IMPORTANCE, Need.KEYS, Need.MERGER_NORM})
    found = model.tower.encode(_images(), needs)
    every = {
        Need.IMPORTANCE: [each.sum() for each in _tokens(torch.cat(received))],
        Need.KEYS: [each.mean(dim=0) for each in _tokens(torch.cat(keys).mean(dim=1))],
        Need.MERGER_NORM: [each.sum() for each in _tokens(torch.cat(norms))],
    }
    for need, expected in every.items():
        close = {"atol": 1e-5, "rtol": 1e-4}
        torch.testing.assert_close(found[str(need)], torch.stack(expected), **close)
    assert found[str(Need.IMPORTANCE)].sum().item() == pytest.approx(len(SIZES), rel=1e-4)


def test_a_model_whose_prompts_have_no_image_has_a_tower_without_weights(model: Any) -> None:
    """As vLLM leaves it out: with none at all."""
    tower, aligner = model.vision, model.aligner
    model.vision = model.aligner = None
    try:
        left_out = model.family.tower(model)
    finally:
        model.vision, model.aligner = tower, aligner
    assert next(left_out.module.parameters(), None) is None
    assert left_out.columns(frozenset({Need.KEYS}))[Need.KEYS] == (64, torch.float32)
