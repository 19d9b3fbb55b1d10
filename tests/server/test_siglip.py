"""A LLaVA with a SigLIP tower: no class token, importance is the attention a token receives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from media import PHOTOS, photo_question
from vllm_server import Server

pytestmark = pytest.mark.server


def test_siglip_answers_from_64_tokens(start: Callable[..., Server]) -> None:
    server = start(
        "siglip", "--plugin", "vtprune", "--trust-request-mm-kwargs", model="demo-siglip"
    )
    server.rpc("start_probe")
    answers = [server.ask(photo_question(index)) for index in range(len(PHOTOS))]
    assert len({answer["choices"][0]["message"]["content"] for answer in answers}) > 1
    (record,) = server.rpc("read_probe")
    assert [len(kept) for kept in record["kept"]] == [64] * len(PHOTOS)
    # Column means over all queries are shares of attention: they add up to one.
    totals = torch.tensor(record["importance"]).sum(dim=1)
    torch.testing.assert_close(totals, torch.ones(len(PHOTOS)))
    unpruned = server.ask(photo_question(0), mm_processor_kwargs={"vtprune": {"rate": 0}})
    saved = unpruned["usage"]["prompt_tokens"] - answers[0]["usage"]["prompt_tokens"]
    assert saved == 576 - 64
