"""The same request gets the same answer, whatever is cached, however it is scheduled.

Two facts are kept apart. Selection is exact: equal features and importance give equal kept tokens,
in any batch. What enters it is vLLM's: the tower's GEMMs round differently with the batch size, so
the probe compares what was kept only where what went in was equal.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from media import PHOTOS, photo_question
from vllm_server import Server

pytestmark = pytest.mark.server

# Longer than a KV block of the CPU backend (128 tokens), so that a prefix can be hit.
QUESTION = (
    "Describe it to somebody who cannot see it, from left to right and from top to bottom. " * 3
)
CONTENTS = [photo_question(index, QUESTION) for index in range(len(PHOTOS))]
CONTENTS.append([*photo_question(0), *photo_question(1, "And this one?")])


ADAFV = {"vtprune": {"method": "adafv"}}


def _alone(server: Server, **body: Any) -> list[str]:
    """Each request on an idle server with empty caches."""
    answers = []
    for content in CONTENTS:
        server.forget()
        answers.append(server.text(content, **body))
    return answers


@pytest.fixture(scope="module")
def alone(pruned: Server) -> list[str]:
    return _alone(pruned)


def test_on_a_prefix_hit_and_on_a_miss(pruned: Server, alone: list[str]) -> None:
    for content, expected in zip(CONTENTS, alone, strict=True):
        pruned.forget()
        before = pruned.metric("vllm:prefix_cache_hits_total")
        assert pruned.text(content) == expected
        assert pruned.metric("vllm:prefix_cache_hits_total") == before
        assert pruned.text(content) == expected
        assert pruned.metric("vllm:prefix_cache_hits_total") > before


def test_on_an_encoder_hit_without_a_prefix_hit(pruned: Server) -> None:
    question = photo_question(0, "A question that no other test asks about it?")
    pruned.forget()
    expected = pruned.text(question)
    assert pruned.client.post("/reset_prefix_cache").status_code == 200
    assert pruned.text(question) == expected


def test_without_prefix_cache_and_with_prefill_in_awkward_chunks(
    start: Callable[..., Server], pruned: Server, alone: list[str]
) -> None:
    """67 tokens a step cut every image of 64 somewhere in the middle."""
    server = start(
        "chunked",
        *["--plugin", "vtprune", "--no-enable-prefix-caching"],
        *["--max-num-batched-tokens", "67", "--max-num-seqs", "8"],
        compiled=True,
    )
    for _ in range(2):
        assert [server.text(content) for content in CONTENTS] == alone
    text_aware = _alone(pruned, **ADAFV)
    for _ in range(2):
        assert [server.text(content, **ADAFV) for content in CONTENTS] == text_aware


def test_inside_a_batch_of_others(pruned: Server, alone: list[str]) -> None:
    pruned.forget()
    assert pruned.texts_at_once(CONTENTS * 2) == alone * 2


def test_stock_vllm_gives_the_same_answers_in_a_batch_too(stock: Server) -> None:
    """What the comparisons above rest on: the fp32 demo model's own answers are stable here."""
    expected = []
    for content in CONTENTS:
        stock.forget()
        expected.append(stock.text(content))
    stock.forget()
    assert stock.texts_at_once(CONTENTS * 2) == expected * 2


def _seen(server: Server) -> dict[tuple[float, ...], list[int]]:
    """Importance to kept tokens, of every image that was encoded since `start_probe`."""
    (record,) = server.rpc("read_probe")
    return dict(zip(map(tuple, record["importance"]), record["kept"], strict=True))


def test_equal_inputs_are_selected_equally_in_any_batch(pruned: Server) -> None:
    pruned.rpc("start_probe")
    for content in CONTENTS[: len(PHOTOS)]:
        pruned.forget()
        pruned.text(content)
    alone = _seen(pruned)
    pruned.forget()
    pruned.rpc("start_probe")
    pruned.texts_at_once(CONTENTS[: len(PHOTOS)])
    together = _seen(pruned)
    assert len(alone) == len(together) == len(PHOTOS)
    common = alone.keys() & together.keys()
    assert common, "the tower rounded differently for every image: nothing could be compared"
    assert {scores: alone[scores] for scores in common} == {
        scores: together[scores] for scores in common
    }


SETTINGS: list[dict[str, Any]] = [
    {},
    {"tokens": 16},
    {"rate": 0.75},
    {"method": "random"},
    {"method": "uniform", "tokens": 100},
    {"method": "adafv"},
    {"method": "adafv", "tokens": 24},
    {"rate": 0},
]


def test_64_requests_at_once_with_other_rates_methods_and_questions(pruned: Server) -> None:
    """Eight settings of each of eight photographs, with a question each; each as if alone."""
    requests = [
        (photo_question(photo, f"{QUESTION} Question {photo * 3 % 5}-{place % 3}?"), setting)
        for photo in range(8)
        for place, setting in enumerate(SETTINGS)
    ]

    def answer(request: tuple[Any, dict[str, Any]]) -> str:
        content, setting = request
        return pruned.text(content, vtprune=setting)

    expected = []
    for request in requests:
        pruned.forget()
        expected.append(answer(request))
    assert len(set(expected)) == len(expected)
    pruned.forget()
    with ThreadPoolExecutor(len(requests)) as pool:
        assert list(pool.map(answer, requests)) == expected
