"""A server whose answers are vectors and scores: a request's settings hold there as in a chat, the
headers say what was kept, and a route that reads no settings refuses them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from media import PHOTOS, data_url, text_part
from vllm_server import Server

from vllm_pruner.compat.versions import at_least

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def pooling(start_shared: Callable[..., Server]) -> Server:
    arguments = ["--runner", "pooling", "--convert", "embed"]
    return start_shared("pooling", "--plugin", "vtprune", *arguments)


def _image(index: int, **fields: Any) -> dict[str, Any]:
    url = data_url(PHOTOS[index].read_bytes())
    return {"type": "image_url", "image_url": {"url": url, **fields}}


def _post(server: Server, path: str, **body: Any) -> httpx.Response:
    return server.client.post(path, json={"model": "demo", **body})


def _chat(*content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*content, text_part("What is it?")]}]


def _kept(response: httpx.Response) -> tuple[int, int]:
    assert response.status_code == 200, response.text
    names = ("x-vtprune-original-tokens", "x-vtprune-kept-tokens")
    original, kept = (int(response.headers[name]) for name in names)
    return original, kept


@pytest.mark.parametrize("path", ["/v1/embeddings", "/pooling"])
@pytest.mark.parametrize(
    ("settings", "kept"), [({}, 64), ({"tokens": 100}, 100), ({"rate": 0}, 576)], ids=str
)
def test_the_body_sets_the_budget(path: str, settings: Any, kept: int, pooling: Server) -> None:
    response = _post(pooling, path, messages=_chat(_image(0)), vtprune=settings)
    assert _kept(response) == (576, kept)
    text = _post(pooling, path, messages=_chat()).json()["usage"]["prompt_tokens"]
    spent = response.json()["usage"]["prompt_tokens"] - text
    assert spent == kept + 1  # the template's line break behind an image


def test_an_image_has_its_detail_and_another_vector_with_it(pooling: Server) -> None:
    parts = [_image(0, detail="low"), _image(1)]
    response = _post(pooling, "/v1/embeddings", messages=_chat(*parts))
    assert _kept(response) == (2 * 576, 29 + 64)
    vectors = [
        _post(pooling, "/v1/embeddings", messages=_chat(_image(0)), vtprune={"rate": rate})
        for rate in (0, 0.5)
    ]
    first, second = (each.json()["data"][0]["embedding"] for each in vectors)
    assert first != second


def test_a_score_has_the_settings_of_its_body(pooling: Server) -> None:
    documents = {"content": [_image(0), _image(1)]}
    body = {"queries": "a cat", "documents": documents, "vtprune": {"tokens": 40}}
    assert _kept(_post(pooling, "/score", **body)) == (2 * 576, 80)
    low = {"queries": "a cat", "documents": {"content": [_image(0, detail="low")]}}
    response = _post(pooling, "/score", **low)
    assert response.status_code == 400
    assert "image_url.detail is 'low' beside several prompts" in response.text


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"vtprune": {"rate": 90}}, "rate is 90; it should be less than 1"),
        ({"prune_rate": 0.5}, "prune_rate is given but there is no such key"),
        ({"vtprune": {"confidence": True}}, "confidence is asked for; allowed: in chat"),
    ],
    ids=str,
)
def test_what_cannot_be_used_is_refused(body: Any, told: str, pooling: Server) -> None:
    for path, question in (
        ("/v1/embeddings", {"messages": _chat(_image(0))}),
        ("/score", {"queries": "a cat", "documents": {"content": [_image(0)]}}),
    ):
        response = _post(pooling, path, **question, **body)
        assert (response.status_code, told in response.text) == (400, True), response.text
        assert response.json()["error"]["param"] == "vtprune"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/embed", {"texts": ["A cat"], "embedding_types": ["float"]}),
        ("/v1/systemone", {"state": "A cat", "questions": {"a": {"type": "noul"}}}),
    ],
    ids=str,
)
def test_a_route_that_reads_no_settings_refuses_them(path: str, body: Any, pooling: Server) -> None:
    told = f"vtprune: settings are given to {path}, which reads none; allowed: /v1/chat/completions"
    for settings in ({"rate": 0.5}, {}):
        response = _post(pooling, path, **body, vtprune=settings)
        assert (response.status_code, told in response.text) == (400, True), response.text
        assert response.json()["error"]["param"] == "vtprune"
    misspelt = _post(pooling, path, **body, vtprun={})
    assert "vtprun is given but there is no such key" in misspelt.text
    # From 0.33 on vLLM itself forbids unknown keys there; otherwise null is as no settings.
    nothing = _post(pooling, path, **body, vtprune=None).text
    assert "vtprun" not in (nothing.replace("body.vtprune", "") if at_least((0, 33)) else nothing)
    assert "vtprun" not in _post(pooling, path, **body).text


def test_what_others_call_truncate_is_no_misspelling_of_ours(pooling: Server) -> None:
    """Cohere's clients send it, and those of NVIDIA's and Hugging Face's servers send it along."""
    picture = _image(0)["image_url"]["url"]
    cohere = _post(
        pooling, "/v2/embed", images=[picture], embedding_types=["float"], truncate="END"
    )
    assert _kept(cohere) == (576, 64)
    assert _kept(_post(pooling, "/v1/embeddings", messages=_chat(_image(0)), truncate="END"))


def test_settings_inside_a_document_are_not_ignored(pooling: Server) -> None:
    document = {"content": [{**_image(0), "vtprune": {"rate": 0}}]}
    for body in ({"documents": document}, {"documents": ["a dog", document]}):
        told = _post(pooling, "/score", queries="a cat", **body).text
        assert "vtprune is given inside a message; allowed: vtprune at the top" in told


def test_what_needs_an_answer_says_that_there_is_none(pooling: Server) -> None:
    body = {"messages": _chat(_image(0)), "settings": [{"rate": 0}]}
    response = pooling.client.post("/vtprune/compare", json=body)
    assert response.status_code == 404
    told = "this server answers no chat completions; allowed: /vtprune/explain"
    assert response.json()["error"]["message"] == told
