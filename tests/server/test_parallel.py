"""Two ranks that share the pictures of a tower out, or its heads, and two engines side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from media import PHOTOS, photo_question
from nightly import NIGHTLY
from vllm_server import Server

pytestmark = [pytest.mark.server, NIGHTLY]

TWO_CORES = {"VLLM_CPU_OMP_THREADS_BIND": "0|1"}
QUESTIONS = [photo_question(number) for number in range(len(PHOTOS))]
SETTINGS: list[dict[str, Any]] = [{}, {"rate": 0.75}, {"rate": 0}]


@pytest.mark.parametrize("mode", ["weights", "data"])
def test_both_ways_of_sharing_a_tower_keep_as_much(start: Callable[..., Server], mode: str) -> None:
    flags = ["--plugin", "vtprune", "--tensor-parallel-size", "2", "--mm-encoder-tp-mode", mode]
    server = start(f"tp-{mode}", *flags, model="demo-qwen2.5", **TWO_CORES)
    for settings in SETTINGS:
        server.forget()
        server.rpc("start_probe")
        for content in QUESTIONS:
            usage = server.ask(content, vtprune=settings)["usage"]["visual_tokens"]
            if settings.get("rate") == 0:
                assert usage["kept"] == usage["original"]
            else:
                assert usage["kept"] < usage["original"]
        first, second = server.rpc("read_probe")
        assert first["kept"] == second["kept"]
        assert len(first["kept"]) == (0 if settings.get("rate") == 0 else len(QUESTIONS))


def test_engines_side_by_side_are_counted_apart(start: Callable[..., Server]) -> None:
    flags = ["--plugin", "vtprune", "--data-parallel-size", "2"]
    server = start("dp2", *flags, **TWO_CORES)
    server.texts_at_once(QUESTIONS * 2)
    misses = server.metrics("vtprune_feature_cache_misses_total")
    assert set(misses) == {
        f'vtprune_feature_cache_misses_total{{engine="{index}"}}' for index in range(2)
    }
    assert all(count > 0 for count in misses.values())
    assert server.metric("vtprune_requests_total") == 2 * len(QUESTIONS)
