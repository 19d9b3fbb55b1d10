"""vtprune's own routes on a real server."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import pytest
from media import data_url, noise, photo_question, text_part
from PIL import Image
from vllm_server import Server

from vllm_pruner.settings.defaults import DEFAULT_METHOD

pytestmark = pytest.mark.server


def _post(server: Server, route: str, **body: Any) -> dict[str, Any]:
    response = server.client.post(f"/vtprune/{route}", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def _messages(index: int, text: str = "What is in this picture?") -> list[dict[str, Any]]:
    return [{"role": "user", "content": photo_question(index, text)}]


def picture(url: str) -> np.ndarray:
    data = base64.b64decode(url.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(float)


def _patches(mask: np.ndarray) -> np.ndarray:
    return mask.reshape(24, 14, 24, 14)


def test_config_says_what_is_in_effect(pruned: Server) -> None:
    config = pruned.client.get("/vtprune/config").json()
    assert (config["model"], config["visual_tokens"]) == ("demo", 576)
    assert config["settings"]["method"] == DEFAULT_METHOD
    assert config["settings"]["detail"] == {"low": 0.95, "high": 0.5, "original": 0.0}
    assert config["implementation"].startswith("torch references, because")
    assert config["versions"]["vllm"] == version("vllm")


def test_methods_come_with_the_schema_of_their_options(pruned: Server) -> None:
    cards = {card["name"]: card for card in pruned.client.get("/vtprune/methods").json()["methods"]}
    assert {"vispruner", "adafv", "attention", "uniform", "random"} <= cards.keys()
    assert cards["adafv"]["reads_text"] and not cards["vispruner"]["reads_text"]
    assert cards["vispruner"]["options"]["properties"]["step"]["default"] == 8
    assert all(card["allowed"] == (card["refused"] is None) for card in cards.values())
    refused = {name: card["refused"] for name, card in cards.items() if not card["allowed"]}
    assert refused.keys() == {"pixels"} and "before the tower" in refused["pixels"]
    assert all(card["description"] for card in cards.values())


def test_estimate_agrees_with_the_usage_of_the_answer(pruned: Server) -> None:
    detail = [{"width": 640, "height": 480}, {"width": 9, "height": 900, "detail": "high"}]
    counts = _post(pruned, "estimate", images=detail, vtprune={"tokens": 100})
    assert [(image["original"], image["kept"]) for image in counts["images"]] == [
        (576, 100),
        (576, 288),
    ]
    usage = pruned.ask(photo_question(0), vtprune={"rate": 0.7})["usage"]["visual_tokens"]
    one = _post(pruned, "estimate", images=detail[:1], vtprune={"rate": 0.7})
    assert {"original": one["original"], "kept": one["kept"]} == usage


@pytest.mark.parametrize("method", [DEFAULT_METHOD, "adafv", "attention"])
def test_explain_tells_what_the_answer_is_made_from(method: str, pruned: Server) -> None:
    settings = {"method": method, "tokens": 40}
    pruned.forget()
    pruned.rpc("start_probe")
    pruned.text(photo_question(2), vtprune=settings)
    (record,) = pruned.rpc("read_probe")
    (found,) = _post(pruned, "explain", messages=_messages(2), vtprune=settings)["images"]
    assert found["kept"] == record["kept"][0]
    assert (found["original"], found["settings"]["method"]) == (576, method)
    (view,) = found["views"]
    assert (view["rows"], view["columns"], view["kept"]) == (24, 24, found["kept"])
    assert np.allclose(view["importance"], record["importance"][0], atol=1e-7)
    assert (view["relevance"] is not None) == (method == "adafv")


def test_the_overlay_darkens_what_is_dropped_and_nothing_else(pruned: Server) -> None:
    (found,) = _post(pruned, "explain", messages=_messages(0), vtprune={"tokens": 64})["images"]
    (whole,) = _post(pruned, "explain", messages=_messages(0), vtprune={"rate": 0})["images"]
    drawn, bright = (picture(image["views"][0]["overlay"]) for image in (found, whole))
    assert drawn.shape == bright.shape == (336, 336, 3)
    same = _patches(np.abs(drawn - bright).max(axis=2) <= 1).all(axis=(1, 3))
    lit = _patches(bright.mean(axis=2) > 8).any(axis=(1, 3))  # black stays black in the dark
    patches = set(np.flatnonzero(same & lit))
    assert patches <= set(found["kept"])
    assert len(patches) > 40


def test_explain_does_not_touch_the_answers(pruned: Server) -> None:
    before = pruned.text(photo_question(3))
    _post(pruned, "explain", messages=_messages(3), overlay=False)
    assert pruned.text(photo_question(3)) == before
    pruned.forget()
    assert pruned.text(photo_question(3)) == before


def test_compare_answers_under_each_of_the_settings(pruned: Server) -> None:
    settings = [{"rate": 0}, {"tokens": 64}, {"method": "adafv", "tokens": 16}]
    answers = _post(pruned, "compare", messages=_messages(1), settings=settings, max_tokens=12)[
        "answers"
    ]
    assert [answer["settings"] for answer in answers] == settings
    assert [answer["text"] for answer in answers] == [
        pruned.text(photo_question(1), vtprune=each) for each in settings
    ]
    assert [answer["usage"].get("visual_tokens", {}).get("kept") for answer in answers] == [
        576,
        64,
        16,
    ]
    for answer in answers:
        assert 0 < answer["seconds_to_first_token"] <= answer["seconds"]


BAD: dict[str, tuple[str, dict[str, Any], int, str]] = {
    "unknown key": ("estimate", {"images": [], "x": 1}, 400, "x"),
    "no images": ("explain", {"messages": [{"role": "user", "content": "Hi"}]}, 400, "no image"),
    "bad rate": ("explain", {"messages": _messages(0), "vtprune": {"rate": 1}}, 400, "rate is 1"),
    "no settings": ("compare", {"messages": _messages(0), "settings": []}, 400, "settings"),
    "bad settings": (
        "compare",
        {"messages": _messages(0), "settings": [{"tokens": 0}]},
        400,
        "tokens is 0",
    ),
    "no message": ("explain", {"messages": []}, 400, "messages"),
    "not a message": ("explain", {"messages": [{"role": 7}]}, 400, "role"),
    "broken image": (
        "explain",
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": data_url(b"no image")}},
                        text_part("What?"),
                    ],
                }
            ]
        },
        400,
        "image",
    ),
    "absurd size": ("estimate", {"images": [{"width": 0, "height": 9}]}, 400, "width"),
    "bad detail": (
        "estimate",
        {"images": [{"width": 9, "height": 9, "detail": "tiny"}]},
        400,
        "detail is ['tiny']",
    ),
}


@pytest.mark.parametrize(("route", "body", "status", "part"), BAD.values(), ids=BAD)
def test_a_bad_body_is_refused_in_openais_format(
    route: str, body: dict[str, Any], status: int, part: str, pruned: Server
) -> None:
    response = pruned.client.post(f"/vtprune/{route}", json=body)
    assert response.status_code == status, response.text
    assert part in response.json()["error"]["message"]
    assert pruned.text(photo_question(0))


def test_a_body_that_is_no_text_is_refused_in_openais_format(pruned: Server) -> None:
    headers = {"Content-Type": "application/json"}
    response = pruned.client.post("/vtprune/estimate", content=b"\x80", headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (400, 400)


def test_a_body_too_large_is_not_read(pruned: Server) -> None:
    headers = {"Content-Type": "application/json"}
    body = b'{"messages": "' + b"x" * (32 << 20) + b'"}'
    response = pruned.client.post("/vtprune/explain", content=body, headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (413, 413)


def test_the_routes_are_in_the_servers_openapi(pruned: Server) -> None:
    paths = pruned.client.get("/openapi.json").json()["paths"]
    ours = {path for path in paths if path.startswith("/vtprune")}
    assert ours == {
        f"/vtprune/{name}" for name in ("config", "methods", "estimate", "explain", "compare")
    }


def test_the_key_of_the_server_guards_the_routes(start: Callable[..., Server]) -> None:
    server = start("keyed", "--plugin", "vtprune", "--api-key", "secret")
    body = {"images": [{"width": 9, "height": 9}]}
    refused = server.client.post("/vtprune/estimate", json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, 401)
    for route in ("config", "methods"):
        assert server.client.get(f"/vtprune/{route}").status_code == 401
    headers = {"Authorization": "Bearer secret"}
    allowed = server.client.post("/vtprune/estimate", json=body, headers=headers)
    assert allowed.json()["kept"] == 64
    assert server.client.get("/vtprune/").status_code == 200  # the page holds nothing secret


def test_a_server_without_the_plugin_has_no_such_routes(stock: Server) -> None:
    assert stock.client.get("/vtprune/config").status_code == 404
    assert stock.client.get("/vtprune/").status_code == 404


def test_noise_is_explained_too(pruned: Server) -> None:
    """An image that is not square: the crop is what the tower saw of it."""
    file = io.BytesIO()
    noise(500, 120).save(file, "PNG")
    content = [
        {"type": "image_url", "image_url": {"url": data_url(file.getvalue(), "image/png")}},
        text_part("What?"),
    ]
    messages = [{"role": "user", "content": content}]
    (found,) = _post(pruned, "explain", messages=messages)["images"]
    assert len(found["kept"]) == 64
