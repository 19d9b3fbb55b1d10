"""HF's image processor sees an image once, whatever is asked about it afterwards.

vLLM has three processor caches: two hand an image's tensors to the engine, and one, for several
API servers, keeps them. The count is of images that HF's own class is called with in the API
server, or vtprune's way around it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from media import PHOTOS, image_part, photo_question, text_part
from vllm_server import Server

from vllm_pruner.prompt.names import fresh

pytestmark = pytest.mark.server

QUESTIONS = [f"Question {number}?" for number in range(8)]
ADAFV = ["--plugin", "vtprune", "--prune-method", "adafv"]


def _settings(**settings: Any) -> dict[str, Any]:
    return {"mm_processor_kwargs": {"vtprune": settings}}


def _ask_all(server: Server, photo: int) -> tuple[list[str], int]:
    """Eight questions about one photograph: the answers, and how often it was preprocessed."""
    before = server.preprocessed()
    answers = [server.text(photo_question(photo, question)) for question in QUESTIONS]
    return answers, server.preprocessed() - before


@pytest.fixture(scope="module")
def alone(pruned: Server) -> list[str]:
    """The eight answers about photograph 0, each on a server that knows nothing of it."""
    answers = []
    for question in QUESTIONS:
        pruned.forget()
        answers.append(pruned.text(photo_question(0, question), **_settings(method="adafv")))
    return answers


def test_a_new_question_rate_or_method_does_not_preprocess_again(pruned: Server) -> None:
    pruned.forget()
    before = pruned.preprocessed()
    for settings in ({"method": "adafv"}, {"tokens": 20}, {"method": "uniform"}):
        for question in QUESTIONS:
            pruned.text(photo_question(0, question), **_settings(**settings))
    assert pruned.preprocessed() == before + 1
    both = [*photo_question(1, "Which of them?"), *photo_question(0, "And why?")]
    pruned.text(both, **_settings(method="adafv"))
    assert pruned.preprocessed() == before + 2
    pruned.forget()
    pruned.text(photo_question(0), **_settings(method="adafv"))
    assert pruned.preprocessed() == before + 3


def test_a_known_image_can_be_named_instead_of_sent_for_a_new_question(pruned: Server) -> None:
    pruned.forget()
    named = {**image_part(PHOTOS[3].read_bytes()), "uuid": "photograph-3"}
    pruned.ask([named, text_part("What is it?")], **_settings(method="adafv"))
    new = text_part("What else can be seen?")
    only_name = {"type": "image_url", "image_url": None, "uuid": "photograph-3"}
    answer = pruned.text([only_name, new], **_settings(method="adafv"))
    pruned.forget()
    assert answer == pruned.text([named, new], **_settings(method="adafv"))


@pytest.mark.parametrize(
    ("arguments", "calls"),
    [(["--mm-processor-cache-gb", "0"], 8), (["--mm-processor-cache-type", "shm"], 1)],
    ids=["none", "shm"],
)
def test_with_vllms_other_processor_caches(
    arguments: list[str], calls: int, start: Callable[..., Server], alone: list[str]
) -> None:
    server = start(arguments[1], *ADAFV, *arguments, compiled=True)
    assert _ask_all(server, 0) == (alone, calls)
    answers, _ = _ask_all(server, 0)
    assert answers == alone


def test_with_several_api_servers_each_preprocesses_it_once(start: Callable[..., Server]) -> None:
    """Compared with the same server: vLLM gives the engine other cores here, and so other
    rounding."""
    server = start("api-servers", *ADAFV, "--api-server-count", "2")
    counts: dict[int, int] = {}
    answers: list[set[str]] = [set() for _ in QUESTIONS]
    for asked in range(4 * len(QUESTIONS)):
        # A connection stays with one of the processes.
        server.client.close()
        server.client = httpx.Client(base_url=server.url, timeout=300)
        number = asked % len(QUESTIONS)
        answers[number].add(server.text(photo_question(0, QUESTIONS[number])))
        seen = server.client.get("/preprocessed").json()
        counts[seen["process"]] = seen["images"]
        # Whichever of the two answers, it shows what both were asked and what the engine did.
        assert server.metric("vtprune_requests_total") == asked + 1
        assert server.metric("vtprune_feature_cache_misses_total") == 1
    assert set(counts.values()) == {1}, counts
    assert len(counts) == 2
    for number, question in enumerate(QUESTIONS):
        unknown = {**image_part(PHOTOS[0].read_bytes()), "uuid": fresh(None)}
        assert answers[number] == {server.text([unknown, text_part(question)])}
