"""What images show, over HTTP: pages keep their print, and forty of them share one budget."""

from __future__ import annotations

import json
from typing import Any

import pytest
from media import PHOTOS, data_url, encode, image_part, photo_question, text_part
from PIL import Image
from vllm_server import Server
from vtprune_evaluate.pages import draw_page

from vllm_pruner.picture import measure

pytestmark = pytest.mark.server

N, ASKED = 576, 64
"""Visual tokens of an image, and what the default keeps of a photograph."""


def _page(seed: int) -> Image.Image:
    return Image.fromarray(draw_page(7, seed).pixels)


def _part(seed: int) -> dict[str, Any]:
    return image_part(encode(_page(seed)), "image/png")


def _about(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [*parts, text_part("What does it say?")]


def _usage(answer: dict[str, Any]) -> Any:
    return answer["usage"].get("visual_tokens")


def _kept(seed: int) -> int:
    """Of a page: all of its print, and one ninth of the rest."""
    return round(N * (1 - round((1 - ASKED / N) * (1 - measure(_page(seed)).text), 4)))


def _post(server: Server, route: str, **body: Any) -> dict[str, Any]:
    response = server.client.post(f"/vtprune/{route}", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_a_page_keeps_its_print_and_the_photograph_beside_it_does_not(pruned: Server) -> None:
    assert N / 2 < _kept(0) < N
    page = _usage(pruned.ask(_about(_part(0))))
    assert page == {"original": N, "kept": _kept(0), "floor": "text"}
    assert _usage(pruned.ask(photo_question(0))) == {"original": N, "kept": ASKED}
    both = _usage(pruned.ask(_about(_part(0), *photo_question(0)[:1])))
    assert both == {"original": 2 * N, "kept": _kept(0) + ASKED, "floor": "text"}


@pytest.mark.parametrize(
    ("settings", "kept"),
    [({"floor": "off"}, 64), ({"rate": 0.75}, 144), ({"tokens": 100}, 100)],
    ids=str,
)
def test_it_is_off_by_one_key_and_for_who_says_how_much(
    settings: Any, kept: int, pruned: Server
) -> None:
    answer = pruned.ask(_about(_part(0)), vtprune=settings)
    assert _usage(answer) == {"original": N, "kept": kept}
    asked = pruned.ask(_about(_part(0)), vtprune={"floor": "text", "tokens": 64})
    assert _usage(asked) == {"original": N, "kept": _kept(0), "floor": "text"}


def test_every_route_says_the_same(pruned: Server) -> None:
    usage = _usage(pruned.ask(_about(_part(1))))
    messages = [{"role": "user", "content": _about(_part(1))}]
    (found,) = _post(pruned, "explain", messages=messages, overlay=False)["images"]
    assert len(found["kept"]) == usage["kept"]
    assert found["settings"]["floor"] == "text"
    url = data_url(encode(_page(1)), "image/png")
    image = {"url": url}
    photo = {"url": data_url(PHOTOS[0].read_bytes())}
    counts = _post(pruned, "estimate", images=[image, photo, {"width": 9, "height": 9}])["images"]
    assert [(each["kept"], each["floor"]) for each in counts] == [
        (usage["kept"], "text"),
        (ASKED, None),
        (ASKED, None),
    ]
    settings = [{}, {"floor": "off"}]
    answers = _post(pruned, "compare", messages=messages, settings=settings)["answers"]
    assert [each["usage"]["visual_tokens"] for each in answers] == [
        usage,
        {"original": N, "kept": ASKED},
    ]
    stream = {"stream": True, "stream_options": {"include_usage": True}}
    *_, last, _ = pruned.post(_about(_part(1)), **stream).text.split("\n\n")[:-1]
    assert json.loads(last.removeprefix("data: "))["usage"]["visual_tokens"] == usage


@pytest.mark.parametrize(
    "image",
    [
        {},
        {"width": 9},
        {"width": 9, "height": 9, "url": "data:image/png;base64,AAAA"},
        {"url": "http://localhost/page.png"},
        {"url": "data:image/png;base64,AAAA"},
        {"url": "data:image/png;base64,?"},
        {"url": "data:image/png"},
    ],
    ids=str,
)
def test_an_estimate_of_no_image_is_refused(image: Any, pruned: Server) -> None:
    response = pruned.client.post("/vtprune/estimate", json={"images": [image]})
    assert response.status_code == 400, response.text
    assert "image" in response.json()["error"]["message"]


def test_a_name_stands_for_what_the_image_shows_and_caches_change_nothing(pruned: Server) -> None:
    named = {**_part(2), "uuid": "page-2"}
    first = pruned.ask(_about(named))
    bare = {"type": "image_url", "image_url": None, "uuid": "page-2"}
    assert pruned.ask(_about(bare))["choices"] == first["choices"]
    assert _usage(pruned.ask(_about(bare))) == _usage(first)
    off = pruned.text(_about(bare), vtprune={"floor": "off"})
    assert _usage(first) == {"original": N, "kept": _kept(2), "floor": "text"}
    pruned.forget()
    again = pruned.ask(_about(_part(2)))
    assert (again["choices"], _usage(again)) == (first["choices"], _usage(first))
    pruned.forget()
    assert pruned.text(_about(_part(2)), vtprune={"floor": "off"}) == off


def test_forty_pages_share_one_budget_on_every_route(pruned: Server) -> None:
    parts = [_part(i) for i in range(38)] + photo_question(0)[:1] + photo_question(1)[:1]
    settings = {"request_tokens": 2001}
    usage = _usage(pruned.ask(_about(*parts), vtprune=settings))
    assert usage == {"original": 40 * N, "kept": 2001}
    images = [{"url": part["image_url"]["url"]} for part in parts]
    counts = _post(pruned, "estimate", images=images, vtprune=settings)
    assert counts["kept"] == 2001
    shares = [each["kept"] for each in counts["images"]]
    assert min(shares[:38]) > max(shares[38:])
    messages = [{"role": "user", "content": _about(*parts[30:])}]
    found = _post(pruned, "explain", messages=messages, vtprune=settings, overlay=False)["images"]
    few = _post(pruned, "estimate", images=images[30:], vtprune=settings)["images"]
    assert [len(each["kept"]) for each in found] == [each["kept"] for each in few]


def test_the_share_of_an_image_is_part_of_its_identity(pruned: Server) -> None:
    """The same page beside a blank one and beside a full one keeps other counts, and neither is
    found in the other's place."""
    blank = image_part(encode(Image.new("RGB", (224, 224), "white")), "image/png")
    settings = {"request_tokens": 120}
    questions = [_about(_part(3), other) for other in (blank, _part(4))]
    answers = [pruned.text(question, vtprune=settings) for question in questions]
    assert [pruned.text(question, vtprune=settings) for question in questions] == answers
    for question, answer in zip(questions[::-1], answers[::-1], strict=True):
        pruned.forget()
        assert pruned.text(question, vtprune=settings) == answer


def test_what_does_not_fit_is_refused_with_the_number_that_does(pruned: Server) -> None:
    parts = [_part(i) for i in range(14)]
    response = pruned.post(_about(*parts))
    assert response.status_code == 400
    said = response.json()["error"]["message"]
    assert "of 14 images" in said
    room = int(said.partition("request_tokens ")[2].split()[0])
    fitting = pruned.ask(_about(*parts), vtprune={"request_tokens": room}, max_tokens=1)
    assert _usage(fitting)["kept"] == room
    over = pruned.post(_about(*parts), vtprune={"request_tokens": room + 1}, max_tokens=1)
    assert (over.status_code, f"request_tokens {room} or less" in over.text) == (400, True)


def test_grounding_keeps_what_boxes_need_unless_it_is_forced(pruned: Server) -> None:
    on = pruned.ask(photo_question(0), vtprune={"grounding": "on"})
    assert _usage(on) == {"original": N, "kept": N}
    refused = pruned.post(photo_question(0), vtprune={"grounding": "on", "rate": 0.75})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "vtprune")
    assert "grounding is 'on' but 144 of an image's 576 tokens" in refused.text
    forced = pruned.ask(photo_question(0), vtprune={"grounding": "forced", "rate": 0.75})
    assert _usage(forced) == {"original": N, "kept": 144}
