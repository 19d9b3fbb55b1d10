"""Off means off: without `--plugin vtprune`, and at rate 0, vLLM answers as without us."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from media import encode, image_part, noise, photo_question, text_part
from vllm_server import Server

from vllm_pruner.settings.config import DEFAULT_METHOD

pytestmark = pytest.mark.server

REQUESTS: dict[str, dict[str, Any]] = {
    "photograph": {"content": photo_question(0)},
    "photograph-sampled": {"content": photo_question(1), "temperature": 0.9, "seed": 7},
    "two-images": {"content": [*photo_question(2), *photo_question(3, "And this?")]},
    "odd-size": {"content": [image_part(encode(noise(37, 501))), text_part("Colours?")]},
    "text-only": {"content": "Say something about nothing."},
}


def _answers(server: Server, **extra: Any) -> dict[str, str]:
    """Every choice with its token ids and log-probabilities, as text, to compare to the byte."""
    details = {"logprobs": True, "top_logprobs": 5, "return_token_ids": True, **extra}
    return {
        name: json.dumps(server.ask(**body, **details)["choices"])
        for name, body in REQUESTS.items()
    }


@pytest.fixture(scope="module")
def expected(stock: Server) -> dict[str, str]:
    stock.forget()
    return _answers(stock)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("installed-not-asked", []),
        ("rate-0", ["--plugin", "vtprune", "--prune-rate", "0"]),
    ],
)
def test_answers_are_those_of_stock_vllm_to_the_byte(
    name: str, arguments: list[str], start: Callable[..., Server], expected: dict[str, str]
) -> None:
    assert _answers(start(name, *arguments, compiled=True)) == expected


def test_a_request_can_turn_any_method_off(pruned: Server, expected: dict[str, str]) -> None:
    for method in (DEFAULT_METHOD, "adafv"):
        pruned.forget()  # a prefix found in the cache is computed in other steps, and rounds so
        assert _answers(pruned, vtprune={"method": method, "rate": 0}) == expected


def test_kill_switch_serves_stock_answers_and_says_so(
    start: Callable[..., Server], expected: dict[str, str]
) -> None:
    server = start("killed", "--plugin", "vtprune", compiled=True, VLLM_VTPRUNE_DISABLE="1")
    assert _answers(server) == expected
    assert "VLLM_VTPRUNE_DISABLE is set; images are served unpruned" in server.log


def test_the_comparison_can_fail(pruned: Server, expected: dict[str, str]) -> None:
    answers = _answers(pruned)
    changed = {name for name in answers if answers[name] != expected[name]}
    assert changed == set(REQUESTS) - {"text-only"}
