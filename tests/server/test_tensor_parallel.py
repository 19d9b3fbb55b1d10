"""Two ranks hold half of the tower's heads each and still keep the same tokens."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from media import PHOTOS, photo_question
from vllm_server import Server

pytestmark = pytest.mark.server


def _records(server: Server) -> list[dict[str, list[list[float]]]]:
    """What each rank saw and kept for every photograph, asked one after the other."""
    server.forget()
    server.rpc("start_probe")
    for index in range(len(PHOTOS)):
        server.text(photo_question(index))
    return server.rpc("read_probe")


def test_every_rank_keeps_the_same_tokens(start: Callable[..., Server], pruned: Server) -> None:
    server = start(
        "tp2",
        *["--plugin", "vtprune", "--tensor-parallel-size", "2"],
        VLLM_CPU_OMP_THREADS_BIND="0|1",
    )
    (single,) = _records(pruned)
    first, second = _records(server)
    assert first["kept"] == second["kept"]
    assert len(first["kept"]) == len(PHOTOS)
    assert first["importance"] == second["importance"]
    # The tower's all-reduce adds two halves where one rank adds a whole: equal within rounding.
    torch.testing.assert_close(
        torch.tensor(first["importance"]),
        torch.tensor(single["importance"]),
        rtol=1e-3,
        atol=1e-6,
    )
