"""The tower never encodes more unpruned tokens at once than vLLM's memory profile allowed for."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from media import encode, image_part, noise, text_part
from vllm_server import Server

pytestmark = pytest.mark.server

TRACED = ["--compilation-config", '{"mode": 2, "backend": "eager"}']
"""Enough to be profiled, which an eager model is not on a CPU. What the decoder runs as has no part
in it, and Inductor's code would be made anew for each budget."""


def test_64_small_requests_at_once(start: Callable[..., Server]) -> None:
    """512 tokens a step hold eight pruned images, but the profile encoded one of 576 at a time;
    2,048 hold 32, and the profile encoded three."""
    for budget, images in (("512", 1), ("2048", 3)):
        flags = ["--plugin", "vtprune", "--max-num-batched-tokens", budget, *TRACED]
        server = start(f"bound-{budget}", *flags, compiled=True)
        profiled = re.search(r"profiled with (\d+) image items", server.log)
        assert profiled
        assert int(profiled[1]) == images
        server.rpc("start_probe")
        contents = [
            [image_part(encode(noise(32, 32, seed=seed))), text_part("?")] for seed in range(64)
        ]
        server.texts_at_once(contents, max_tokens=1)
        (record,) = server.rpc("read_probe")
        assert sum(record["images"]) == 64
        assert max(record["images"]) <= images
        assert len(record["kept"]) == 64
