"""The server's own rate while requests wait, afterwards, and when pruned answers disagree."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest
from media import image_part, text_part
from vllm_server import Server
from vtprune_evaluate.datasets.synthetic import SYNTHETIC

from vllm_pruner.prompt.shadow_rule import WINDOW
from vllm_pruner.settings.load import ladder

pytestmark = pytest.mark.server

LLAVA = str(Path(__file__).parents[2] / "demo" / "llava")
N, LOW, HIGH = 256, 0.5, 0.9
SECONDS = 0.5
"""Of calm for a step down."""


@pytest.fixture(scope="module")
def moving(start_shared: Callable[..., Server]) -> Server:
    """Two requests run at a time, and every answer is compared, beside which one more may wait."""
    rates = ["--prune-method", "random", "--prune-rate", str(LOW)]
    rates += ["--prune-rate-under-load", str(HIGH)]
    rates += ["--prune-load", json.dumps({"waiting": 4, "seconds": SECONDS})]
    shadows = ["--prune-shadow", "1", "--prune-shadow-bound", "0.99"]
    few = ["--max-num-seqs", "2"]
    return start_shared("moving", "--plugin", "vtprune", *rates, *shadows, *few, model=LLAVA)


def _contents(count: int, pictures: int = 1) -> list[list[dict[str, Any]]]:
    """Questions about the demo's scenes."""
    items = list(islice(SYNTHETIC.items(None, 5 * count), count))
    return [
        [*[image_part(item.load(), "image/png")] * pictures, text_part(item.prompt)]
        for item in items
    ]


def _tokens(answer: dict[str, Any]) -> Any:
    return answer["usage"]["visual_tokens"]


def _kept(rate: float) -> int:
    return round(N * (1 - rate))


def test_a_quiet_server_has_the_ordinary_rate_and_says_so(moving: Server) -> None:
    (content,) = _contents(1)
    response = moving.post(content)
    assert _tokens(response.json()) == {"original": N, "kept": _kept(LOW), "rate": LOW}
    assert response.headers["x-vtprune-rate"] == str(LOW)
    assert "the rate goes up to 0.9000 while 4 requests wait" in moving.log
    (shown,) = moving.metrics("vtprune_server_rate").values()
    assert shown == LOW


def test_while_requests_wait_it_goes_up_and_then_down_again(moving: Server) -> None:
    """Sixteen requests of eight clients last half a second, in which the rate may be looked at
    before they wait; so they ask until it has moved."""
    quiet = [moving.text(content) for content in _contents(2)]
    (content,) = _contents(1, pictures=2)
    body = {"max_tokens": 24, "ignore_eos": True}

    def ask(number: int) -> Any:
        own = {"vtprune": {"rate": LOW}} if number % 4 == 0 else {}
        return _tokens(moving.ask(content, **body, **own))

    rates, deadline = {LOW}, time.monotonic() + 60
    with ThreadPoolExecutor(8) as pool:
        while max(rates) <= LOW:
            assert time.monotonic() < deadline
            told = list(pool.map(ask, range(16)))
            own, moved = told[::4], [each for number, each in enumerate(told) if number % 4]
            assert all(each == {"original": 2 * N, "kept": 2 * _kept(LOW)} for each in own)
            assert all(each["kept"] == 2 * _kept(each["rate"]) for each in moved)
            rates |= {each["rate"] for each in moved}
    assert rates <= set(ladder(LOW, HIGH))
    assert f"in place of {LOW:.4f}: " in moving.log
    deadline = time.monotonic() + 30
    while _tokens(moving.ask(_contents(1)[0]))["rate"] > LOW:
        assert time.monotonic() < deadline
        time.sleep(SECONDS)
    assert [moving.text(content) for content in _contents(2)] == quiet


def test_answers_that_disagree_lower_it(moving: Server) -> None:
    """Of half of the tokens, drawn by chance. How many of the answers are compared, so how many it
    takes, is a matter of how fast the machine is."""
    deadline = time.monotonic() + 60
    for content in cycle(_contents(3 * WINDOW)):
        rate = _tokens(moving.ask(content, max_tokens=4))["rate"]
        if rate < LOW or time.monotonic() > deadline:
            break
    assert rate == pytest.approx(1 - 1.5 * (1 - LOW))
    assert "from now on the rate is at most 0.2500" in moving.log
