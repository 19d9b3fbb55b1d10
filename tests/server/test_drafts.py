"""Speculative decoding by n-grams beside pruning: the answers are those without."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from media import photo_question
from nightly import NIGHTLY
from vllm_server import Server

pytestmark = [pytest.mark.server, NIGHTLY]

DRAFTS = {
    "method": "ngram",
    "num_speculative_tokens": 3,
    "prompt_lookup_min": 1,
    "prompt_lookup_max": 3,
}
SETTINGS: list[dict[str, Any]] = [{}, {"rate": 0.75}, {"method": "pool", "tokens": 16}, {"rate": 0}]


@pytest.mark.parametrize("model", ["demo", "demo-qwen2.5"])
def test_drafted_answers_are_those_without_drafts(start: Callable[..., Server], model: str) -> None:
    """A grammar has the model repeat itself, so that drafts are accepted, some in part."""

    def said(server: Server, settings: dict[str, Any]) -> list[tuple[str, float]]:
        body = server.ask(
            photo_question(0, "what color is it?"),
            vtprune=settings,
            max_tokens=24,
            structured_outputs={"regex": "((red|blue|green) ){9}"},
            logprobs=True,
        )
        found = body["choices"][0]["logprobs"]["content"]
        return [(each["token"], each["logprob"]) for each in found]

    plain = start(f"{model}-plain", "--plugin", "vtprune", model=model)
    expected = [said(plain, settings) for settings in SETTINGS]
    plain.stop()
    flags = ["--plugin", "vtprune", "--speculative-config", json.dumps(DRAFTS)]
    drafting = start(f"{model}-drafting", *flags, model=model)
    with ThreadPoolExecutor(len(SETTINGS)) as pool:
        answers = list(pool.map(lambda settings: said(drafting, settings), SETTINGS))
    for found, without in zip(answers, expected, strict=True):
        assert [token for token, _ in found] == [token for token, _ in without]
        ours, theirs = ([value for _, value in each] for each in (found, without))
        assert ours == pytest.approx(theirs, abs=1e-4)
    assert drafting.metric("vllm:spec_decode_num_accepted_tokens_total") > 0
