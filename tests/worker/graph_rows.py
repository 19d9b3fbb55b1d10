"""Images of crops drawn at random, and what the rows of their graphs are held against."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from replayed_tower import CPU

from vllm_pruner.methods.base import Need
from vllm_pruner.tower import EncoderImage
from vllm_pruner.worker.recorder import HostFree

__all__ = ["alone", "assert_equal_rows", "assert_meets_no_host", "assert_rows", "drawn"]

Rows = dict[str, torch.Tensor]


def drawn(model: Any, crops: list[int], seed: int = 0) -> list[EncoderImage]:
    """Images of so many crops, all different."""
    draw = torch.Generator().manual_seed(seed)
    size = model.config.vision_config.image_size
    sides = (size, size) if isinstance(size, int) else size
    return [
        EncoderImage(
            torch.randn(number, 3, *sides, generator=draw),
            SimpleNamespace(encoded=number * model.tower.page),  # type: ignore[arg-type]
        )
        for number in crops
    ]


def alone(model: Any, image: EncoderImage, needs: frozenset[Need]) -> Rows:
    """The tower's own rows of one image."""
    rows: Rows = model.tower.encode([image], needs)
    return rows


def assert_rows(found: Rows, expected: list[Rows]) -> None:
    """A batch of another size sums in another order: close, not equal."""
    for name in expected[0]:
        rows = torch.cat([each[name] for each in expected])
        assert found[name].dtype == rows.dtype
        torch.testing.assert_close(found[name], rows, rtol=2e-5, atol=2e-5)


def assert_equal_rows(found: Rows, expected: Rows) -> None:
    """The same kinds of rows, to the bit."""
    assert {*found} == {*expected}
    for name, rows in found.items():
        assert torch.equal(rows, expected[name]), name


def assert_meets_no_host(made: Any) -> None:
    """The forward that is captured in the largest graph never waits for the device."""
    values = made.model.prepare_encoder_cudagraph_capture_inputs(
        made.manager.token_budgets[-1], made.manager.max_batch_size, 0, CPU, torch.float32
    ).values
    with HostFree(), torch.inference_mode():
        made.model.encoder_cudagraph_forward(values)
