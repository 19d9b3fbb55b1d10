"""Every method through one running server: the right number of tokens, the same answer alone and
together, over a CLIP and a SigLIP tower."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from media import photo_question
from vllm_server import Server

from vllm_pruner import methods
from vllm_pruner.methods.budget import Budget

pytestmark = pytest.mark.server

QUESTION = photo_question(0, "Say what stands where, from left to right?")
BUDGETS: list[dict[str, Any]] = [{"tokens": 64}, {"tokens": 59}, {"rate": 0.5}]
REQUESTS = [
    {"method": name, **budget}
    for name in methods.names()
    if not methods.get(name).before_tower  # which needs a tower that takes some tokens
    for budget in (BUDGETS if name in ("visionzip", "pool", "resize") else BUDGETS[:1])
]


def _ask(server: Server, setting: dict[str, Any]) -> tuple[str, int]:
    completion = server.ask(QUESTION, mm_processor_kwargs={"vtprune": setting})
    text: str = completion["choices"][0]["message"]["content"]
    return text, completion["usage"]["prompt_tokens"]


def _together(server: Server, settings: Sequence[dict[str, Any]]) -> list[tuple[str, int]]:
    with ThreadPoolExecutor(len(settings)) as pool:
        return list(pool.map(lambda setting: _ask(server, setting), settings))


def _check(server: Server) -> None:
    server.rpc("start_probe")
    alone = []
    for setting in REQUESTS:
        server.forget()
        alone.append(_ask(server, setting))
    words = _ask(server, {"rate": 0})[1] - 576
    (record,) = server.rpc("read_probe")
    for setting, (_, tokens), kept in zip(REQUESTS, alone, record["kept"], strict=True):
        method = methods.get(setting["method"])
        budget = Budget(setting.get("rate"), setting.get("tokens"))
        assert tokens - words == len(kept) == method.keep_count(576, budget), setting
        assert kept == sorted(kept)
        assert method.repeats or len(set(kept)) == len(kept)
    assert len({text for text, _ in alone}) > len(REQUESTS) // 2, "the methods do differ"
    server.forget()
    assert _together(server, REQUESTS) == alone
    # Encoded once more than needed is allowed, answered otherwise is not.
    assert _together(server, REQUESTS[::-1]) == alone[::-1]


def test_every_method_answers_alone_as_together(pruned: Server) -> None:
    _check(pruned)


def test_every_method_works_without_a_class_token(start: Callable[..., Server]) -> None:
    server = start(
        "siglip-methods",
        *["--plugin", "vtprune", "--trust-request-mm-kwargs", "--prune-method", "visionzip"],
        model="demo-siglip",
    )
    _check(server)
    # The server's own method reads keys: they are in the feature cache beside the features.
    server.forget()
    server.rpc("start_probe")
    for tokens in (64, 63, 62):
        _ask(server, {"tokens": tokens})
    (record,) = server.rpc("read_probe")
    assert record["images"] == [1]
    assert len(record["kept"]) == 3


def test_an_image_is_encoded_again_for_what_the_cache_does_not_keep(pruned: Server) -> None:
    pruned.forget()
    pruned.rpc("start_probe")
    for name in ("vispruner", "scope", "divprune", "hiprune", "visionzip", "resize", "uniform"):
        _ask(pruned, {"method": name})
    (record,) = pruned.rpc("read_probe")
    assert record["images"] == [1] * 4, "once for those it knows, once for each of three others"


def test_a_video_method_is_none_for_images(pruned: Server) -> None:
    response = pruned.post(QUESTION, mm_processor_kwargs={"vtprune": {"method": "evs"}})
    assert response.status_code == 400
    assert "method is 'evs'; allowed here: adafv, " in response.json()["error"]["message"]
