"""What rides beside the features in the rows of a graph."""

from __future__ import annotations

import pytest
import torch

from vllm_pruner.tower import FEATURES
from vllm_pruner.worker.row_format import RowFormat


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_columns_come_back_to_the_bit(dtype: torch.dtype) -> None:
    columns = {
        FEATURES: (6, dtype),
        "importance": (0, torch.float32),
        "keys": (3, torch.float32),
    }
    form = RowFormat(columns)
    draw = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**31), 2**31 - 1, (5, 4), dtype=torch.int32, generator=draw)
    made = {
        FEATURES: torch.randn(5, 6, generator=draw).to(dtype),
        "importance": bits[:, 0].clone().view(torch.float32),  # NaNs among them
        "keys": bits[:, 1:].contiguous().view(torch.float32),
    }
    packed = form.pack(made)
    assert packed.shape == (5, form.width)
    assert packed.dtype == dtype
    for name, rows in form.unpack(packed).items():
        assert rows.shape == made[name].shape
        assert rows.is_contiguous()
        if name == FEATURES:
            assert torch.equal(rows, made[name])
        else:
            assert torch.equal(rows.view(torch.int32), made[name].view(torch.int32))
