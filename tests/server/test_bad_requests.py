"""A bad request gets a 4xx and one clear sentence; the engine lives and answers the next one."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from media import PHOTOS, data_url, encode, image_part, noise, photo_question, text_part
from vllm_server import Server

from vllm_pruner.settings.defaults import DEFAULT_METHOD

pytestmark = pytest.mark.server

_PHOTO = encode(noise(64, 48), "JPEG")
URLS = {
    "truncated": data_url(_PHOTO[: len(_PHOTO) // 2]),
    "empty": data_url(b""),
    "not-base64": "data:image/png;base64,@@@ this is not base64 @@@",
    "text-file": data_url(b"Just some text.", "text/plain"),
    "text-file-called-png": data_url(b"Just some text.", "image/png"),
    "pdf": data_url(b"%PDF-1.7\n%...", "application/pdf"),
    "no-url": "a picture of a cat",
}
SETTINGS: dict[str, tuple[Any, str]] = {
    "rate-negative": ({"rate": -1}, "rate is -1"),
    "rate-1": ({"rate": 1}, "rate is 1"),
    "rate-text": ({"rate": "0.5"}, "rate is '0.5'"),
    "rate-percent": ({"rate": 90}, "rate is 90; it should be less than 1; for 90 % write 0.9"),
    "rate-off": ({"rate": "off"}, "; to turn pruning off write rate 0"),
    "keep-ratio": ({"keep_ratio": 0.25}, "1 - keep_ratio, here 0.75"),
    "misspelt-method": ({"method": "vispuner"}, "; the nearest is vispruner"),
    "tokens-0": ({"tokens": 0}, "tokens is 0"),
    "tokens-10000": ({"tokens": 10_000}, "tokens is 10000; allowed: 1 to 576"),
    "rate-and-tokens": ({"rate": 0.5, "tokens": 64}, "allowed: one of the two"),
    "unknown-method": ({"method": "fastv"}, "method is 'fastv'; allowed here: adafv, adafv-ref, "),
    "unknown-option": (
        {"method": "vispruner", "options": {"steps": 3}},
        "vispruner has no such option; allowed: important_ratio, step; the nearest is step",
    ),
    "option-of-another": (
        {"options": {"important_ratio": 0.75}},
        f"options.important_ratio is 0.75 but {DEFAULT_METHOD} has no such option; "
        "allowed: alpha; method vispruner has it",
    ),
    "bad-option": ({"options": {"alpha": -1}}, "options.alpha is -1"),
    "no-merger": ({"importance": "merger_norm"}, "but llava merges no patches; allowed: attention"),
    "unknown-key": ({"ratio": 0.5}, "ratio is 0.5 but there is no such key"),
    "not-an-object": (0.5, "settings are 0.5"),
}


@pytest.fixture(autouse=True)
def the_next_request_is_answered(pruned: Server) -> Iterator[None]:
    yield
    assert pruned.text(photo_question(0))


@pytest.mark.parametrize("url", URLS.values(), ids=URLS)
def test_what_is_no_image_is_refused(url: str, pruned: Server) -> None:
    response = pruned.post([{"type": "image_url", "image_url": {"url": url}}, text_part("What?")])
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, 400)
    assert error["message"]
    assert "\n" not in error["message"]


def _kind(value: object) -> str:
    return type(value).__name__


@pytest.mark.parametrize("value", [data_url(_PHOTO), "", 5, False, [1, 2], {}], ids=_kind)
def test_what_only_python_can_send_is_refused_as_json(value: Any, pruned: Server) -> None:
    part = {"type": "image_pil", "image_pil": value}
    for image in (part, {**part, "uuid": "pil"}):
        error = pruned.post([image, text_part("What?")]).json()["error"]
        said = f"image 1 is of the type {_kind(value)}; allowed: a picture"
        assert (error["code"], error["message"].startswith(said)) == (400, True), error


@pytest.mark.parametrize("mime", ["application/pdf", "text/plain", "image/gif"])
def test_a_wrong_type_over_a_real_image_is_answered_as_stock_does(
    mime: str, pruned: Server, stock: Server
) -> None:
    content = [image_part(PHOTOS[0].read_bytes(), mime), text_part("What is in this picture?")]
    assert stock.post(content).status_code == 200
    assert pruned.text(content) == pruned.text(photo_question(0))


@pytest.mark.parametrize(("settings", "sentence"), SETTINGS.values(), ids=SETTINGS)
def test_bad_settings_are_named(settings: Any, sentence: str, pruned: Server) -> None:
    response = pruned.post(photo_question(0), mm_processor_kwargs={"vtprune": settings})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, "vtprune")
    assert error["message"].startswith("vtprune: ")
    assert sentence in error["message"]


def test_not_a_number_as_rate_is_refused(pruned: Server) -> None:
    url = data_url(PHOTOS[0].read_bytes())
    body = f"""{{"model": "demo", "mm_processor_kwargs": {{"vtprune": {{"rate": NaN}}}},
        "messages": [{{"role": "user", "content": [
            {{"type": "image_url", "image_url": {{"url": "{url}"}}}}]}}]}}"""
    headers = {"Content-Type": "application/json"}
    response = pruned.client.post("/v1/chat/completions", content=body, headers=headers)
    assert response.status_code == 400
    assert "rate is nan; it should be a finite number" in response.json()["error"]["message"]


ROUTES = [
    *("/vtprune/estimate", "/vtprune/explain", "/v1/chat/completions", "/v1/completions"),
    *("/v1/responses", "/v1/messages", "/v1/messages/count_tokens", "/v1/chat/completions/batch"),
]


def _told(server: Server, route: str, body: bytes, kind: str = "application/json") -> str:
    response = server.client.post(route, content=body, headers={"Content-Type": kind})
    assert response.status_code == 400
    return str(response.json()["error"]["message"])


def test_a_body_that_is_not_json_is_said_to_be_that(pruned: Server) -> None:
    for route in ROUTES:
        for body in (b"this is not JSON", b"{'single': 'quotes'}", b"[1"):
            assert _told(pruned, route, body).startswith("the body is not JSON"), route
        assert _told(pruned, route, b"") == "the body is empty; allowed: a JSON object"


def test_a_body_that_is_called_something_else_is_told_what_to_call_it(pruned: Server) -> None:
    for route in ROUTES:
        told = _told(pruned, route, b"{}", "text/plain")
        assert told == "Content-Type is 'text/plain'; allowed: application/json", route


def test_what_is_json_and_not_a_request_is_answered_as_stock_does(
    pruned: Server, stock: Server
) -> None:
    for body in ({"model": "demo"}, {"model": "demo", "messages": 3}):
        answers = [each.client.post("/v1/chat/completions", json=body) for each in (pruned, stock)]
        assert answers[0].status_code == answers[1].status_code == 400
        assert answers[0].json() == answers[1].json()


def _embeddings() -> dict[str, str]:
    """What an encoder elsewhere would send: 576 projected tokens."""
    file = io.BytesIO()
    torch.save(torch.randn(576, 256, generator=torch.Generator().manual_seed(0)), file)
    return {"type": "image_embeds", "image_embeds": base64.b64encode(file.getvalue()).decode()}


def test_precomputed_embeddings_are_refused_unless_unpruned(pruned: Server) -> None:
    content = [_embeddings(), text_part("What?")]
    error = pruned.post(content).json()["error"]
    assert error["code"] == 400
    assert error["message"].startswith("image_embeds is given, but vtprune prunes in the encoder")
    assert pruned.text(content, mm_processor_kwargs={"vtprune": {"rate": 0}})
