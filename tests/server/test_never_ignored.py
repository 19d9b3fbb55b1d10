"""Settings that stand where nobody reads them are a 400, whatever route they come by."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from media import PHOTOS, image_part, text_part
from vllm_server import Server

pytestmark = pytest.mark.server

HALF = {"vtprune": {"rate": 0.5}}


def _message(**body: Any) -> dict[str, Any]:
    """A body of `/v1/messages` about a photograph."""
    data = base64.b64encode(PHOTOS[0].read_bytes()).decode()
    source = {"type": "base64", "media_type": "image/jpeg", "data": data}
    content = [{"type": "image", "source": source}, text_part("What is it?")]
    messages = [{"role": "user", "content": content}]
    return {"messages": messages, "max_tokens": 4, "temperature": 0, **body}


NOT_READ = {
    "completions": ("/v1/completions", {"prompt": "Hi.", **HALF}, "no images"),
    "misspelt": ("/v1/completions", {"prompt": "Hi.", "vtprun": {}}, "vtprun is given but"),
    "tokenize": ("/tokenize", {"prompt": "Hi.", **HALF}, "given to a prompt of /tokenize"),
    "misspelt-message": ("/v1/messages", _message(vtprun={"rate": 0.5}), "vtprun is given but"),
    "bad-message": ("/v1/messages", _message(vtprune={"rate": 90}), "for 90 % write 0.9"),
}
PARTS = {
    "image": lambda image, text: [{**image, **HALF}, text],
    "text": lambda image, text: [image, {**text, **HALF}],
    "file": lambda image, text: [{**image, "image_url": {**image["image_url"], **HALF}}, text],
}


def _refused(server: Server, route: str, body: dict[str, Any]) -> str:
    response = server.client.post(route, json={"model": "demo", **body})
    assert response.status_code == 400, response.text
    return str(response.json()["error"]["message"])


@pytest.mark.parametrize(("route", "body", "sentence"), NOT_READ.values(), ids=NOT_READ)
def test_a_key_beside_the_prompt(route: str, body: Any, sentence: str, pruned: Server) -> None:
    assert sentence in _refused(pruned, route, body)
    fine = {key: value for key, value in body.items() if key not in ("vtprune", "vtprun")}
    assert pruned.client.post(route, json={"model": "demo", **fine}).status_code == 200


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("route", ["/v1/chat/completions", "/tokenize"])
def test_a_key_inside_a_message(route: str, parts: Any, pruned: Server) -> None:
    content = parts(image_part(PHOTOS[0].read_bytes()), text_part("What is it?"))
    said = _refused(pruned, route, {"messages": [{"role": "user", "content": content}]})
    assert "vtprune is given inside a message; allowed: vtprune at the top of the body" in said


def test_a_key_inside_a_message_of_other_apis(pruned: Server) -> None:
    asked = _message()
    asked["messages"][0]["content"][0] |= HALF
    for route in ("/v1/messages", "/v1/messages/count_tokens"):
        assert "vtprune is given inside a message" in _refused(pruned, route, asked)
    url = image_part(PHOTOS[0].read_bytes())["image_url"]["url"]
    part = {"type": "input_image", "image_url": url, "detail": "auto", **HALF}
    said = _refused(pruned, "/v1/responses", {"input": [{"role": "user", "content": [part]}]})
    assert "vtprune is given inside a message" in said


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"chat_template_kwargs": HALF}, "settings are given in chat_template_kwargs; allowed: vt"),
        ({"media_io_kwargs": HALF}, "settings are given in media_io_kwargs; allowed: vtprune at"),
        ({"vllm_xargs": {"vtprune_rate": 0.5}}, "vtprune_rate is given but there is no such key"),
    ],
    ids=str,
)
def test_a_key_among_those_of_others(body: Any, sentence: str, pruned: Server) -> None:
    content = [image_part(PHOTOS[0].read_bytes()), text_part("What is it?")]
    messages = [{"role": "user", "content": content}]
    assert sentence in _refused(pruned, "/v1/chat/completions", {"messages": messages, **body})
