"""Off means off: without `--plugin vtprune`, and at rate 0, vLLM answers as without us."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from media import encode, image_part, noise, photo_question, text_part
from vllm_server import Server

from vllm_pruner.settings.defaults import DEFAULT_METHOD

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


@pytest.fixture(scope="module")
def not_asked(start_shared: Callable[..., Server]) -> Server:
    """vtprune is installed, and nothing says that it should prune."""
    return start_shared("not-asked", "--trust-request-mm-kwargs", compiled=True)


def test_without_the_flag_answers_are_those_of_stock_vllm_to_the_byte(
    not_asked: Server, expected: dict[str, str]
) -> None:
    assert _answers(not_asked) == expected


def test_at_rate_0_answers_are_those_of_stock_vllm_to_the_byte(
    start: Callable[..., Server], expected: dict[str, str]
) -> None:
    server = start("rate-0", "--plugin", "vtprune", "--prune-rate", "0", compiled=True)
    assert _answers(server) == expected


def test_settings_of_a_call_are_refused_where_nothing_prunes(
    not_asked: Server, expected: dict[str, str]
) -> None:
    kwargs = {"vtprune": {"rate": 0.5}}
    response = not_asked.post(photo_question(0), mm_processor_kwargs=kwargs)
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, "vtprune", 400)
    assert "engine that does not prune; allowed: with mm_processor_kwargs" in error["message"]
    assert "or --plugin vtprune for a server" in error["message"]
    not_asked.forget()
    assert _answers(not_asked, mm_processor_kwargs={"vtprune": None}) == expected


def test_a_request_can_turn_any_method_off(pruned: Server, expected: dict[str, str]) -> None:
    for method in (DEFAULT_METHOD, "adafv"):
        pruned.forget()  # a prefix found in the cache is computed in other steps, and rounds so
        assert _answers(pruned, vtprune={"method": method, "rate": 0}) == expected


def test_kill_switch_serves_stock_answers_and_says_so(
    start: Callable[..., Server], stock: Server, expected: dict[str, str]
) -> None:
    arguments = ["--plugin", "vtprune", "--trust-request-mm-kwargs"]
    server = start("killed", *arguments, compiled=True, VLLM_VTPRUNE_DISABLE="1")
    assert _answers(server) == expected
    settings = {"vtprune": {"rate": 0.5}}
    asked = server.ask(photo_question(4), mm_processor_kwargs=settings)
    assert asked["choices"][0]["message"]["content"] == stock.text(photo_question(4))
    assert asked["usage"]["prompt_tokens"] > 576
    assert "VLLM_VTPRUNE_DISABLE is set; images are served unpruned" in server.log


def test_the_comparison_can_fail(pruned: Server, expected: dict[str, str]) -> None:
    answers = _answers(pruned)
    changed = {name for name in answers if answers[name] != expected[name]}
    assert changed == set(REQUESTS) - {"text-only"}
