"""Tokens chosen by their pixels before the tower runs, on a running server: counts, answers that do
not depend on what is cached or asked beside, and the floor that leaves only what is plain."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from media import clip, encode, image_part, noise, photo_question, text_part, video_part
from nightly import NIGHTLY
from PIL import Image, ImageDraw, ImageFont
from shared_servers import SharedServers
from vllm_server import Server

pytestmark = pytest.mark.server

SETTINGS = {"method": "pixels", "rate": 0.95, "floor": "content"}
HALF = {"method": "pixels", "rate": 0.5}
LONG = "Say exactly what stands where, beginning on the left and going slowly to the right. " * 5


def _drawn(side: int) -> Image.Image:
    """A few lines on an otherwise empty page."""
    image = Image.new("RGB", (side, side), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(20)
    for line in range(4):
        draw.text((30, 30 + 26 * line), f"Total of line {line}: {17 * line}.90", "black", font)
    return image


def _page(side: int = 448) -> list[dict[str, Any]]:
    return [image_part(encode(_drawn(side)), "image/png"), text_part("What is the total?")]


def _noise(width: int, height: int) -> list[dict[str, Any]]:
    picture = image_part(encode(noise(width, height)), "image/png")
    return [picture, text_part(LONG)]


CONTENTS: list[Any] = [
    _page(),
    *(photo_question(index, LONG) for index in range(2, 4)),
    _noise(448, 140),
    _noise(120, 500),
    [*_page(336), *photo_question(0, "Second."), *_noise(300, 300)],
    "Say something about nothing.",
]


OTHERS = [pytest.param(each, marks=NIGHTLY) for each in ("demo-qwen3", "demo-glm4v")]


@pytest.fixture(scope="module", params=["demo-qwen2.5", *OTHERS])
def served(request: pytest.FixtureRequest, servers: SharedServers) -> Iterator[Server]:
    """The server of `test_families`."""
    flags = ["--plugin", "vtprune", "--prune-rate", "0.5", "--trust-request-chat-template"]
    name = f"{request.param}-pruned"
    with servers.use(name, *flags, "--enforce-eager", model=request.param) as server:
        yield server


def _usage(server: Server, content: Any, settings: dict[str, Any]) -> Any:
    return server.ask(content, max_tokens=1, vtprune=settings)["usage"]


def test_an_empty_page_is_mostly_dropped_and_a_photograph_stays(served: Server) -> None:
    whole = _usage(served, _page(), {"rate": 0})
    page = _usage(served, _page(), SETTINGS)
    original = page["visual_tokens"]["original"]
    assert page["visual_tokens"]["floor"] == "content"
    assert 0.1 * original < page["visual_tokens"]["kept"] < 0.6 * original
    dropped = original - page["visual_tokens"]["kept"]
    assert whole["prompt_tokens"] - page["prompt_tokens"] == dropped
    grain = _usage(served, _noise(300, 300), SETTINGS)["visual_tokens"]
    assert grain["kept"] == grain["original"]
    body = {"images": [{"url": _page()[0]["image_url"]["url"]}], "vtprune": SETTINGS}
    estimate = served.client.post("/vtprune/estimate", json=body).json()
    assert estimate["images"][0] == page["visual_tokens"]


def test_a_picture_with_nothing_plain_is_answered_as_unpruned(served: Server) -> None:
    body = {"logprobs": True, "top_logprobs": 5}
    answers = []
    for settings in ({"rate": 0}, SETTINGS):
        served.forget()
        answers.append(served.ask(_noise(300, 300), vtprune=settings, **body)["choices"])
    assert json.dumps(answers[0]) == json.dumps(answers[1])


def test_the_same_answer_alone_at_once_and_on_every_hit(served: Server) -> None:
    body = {"vtprune": HALF}
    alone = []
    for content in CONTENTS:
        served.forget()
        alone.append(served.text(content, **body))
    served.forget()
    assert served.texts_at_once(CONTENTS, **body) == alone
    before = served.metric("vllm:prefix_cache_hits_total")
    assert [served.text(content, **body) for content in CONTENTS] == alone
    assert served.metric("vllm:prefix_cache_hits_total") > before
    assert len(set(alone)) == len(alone), "answers depend on the picture"


def test_what_is_kept_is_what_is_written(served: Server) -> None:
    """Every token that the ink of the lines touches."""
    body = {"messages": [{"role": "user", "content": _page()}], "vtprune": SETTINGS}
    (image,) = served.client.post("/vtprune/explain", json=body).json()["images"]
    (view,) = image["views"]
    ink = np.asarray(_drawn(448).convert("L")) < 128
    edge = 448 // view["rows"]
    assert view["rows"] == view["columns"] == 448 / edge
    written = ink.reshape(view["rows"], edge, view["columns"], edge).any(axis=(1, 3)).flatten()
    assert set(np.flatnonzero(written)) <= set(view["kept"])
    assert view["importance"] is None and view["overlay"].startswith("data:image/png")


def test_a_video_is_no_picture(served: Server) -> None:
    film = [video_part(clip(8)), text_part(LONG)]
    answer = served.post(film, vtprune=SETTINGS)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(
        "vtprune: method is 'pixels', which looks for what is plain, but not in videos; allowed: a "
        "video_method, or video_rate 0"
    )
    usage = _usage(served, [*film, *_page()], {**SETTINGS, "video_method": "vidcom2"})
    assert usage["visual_tokens"]["video"]["kept"] < usage["visual_tokens"]["video"]["original"]
    usage = _usage(served, [*film, *_page()], {**SETTINGS, "video_rate": 0})
    assert usage["visual_tokens"]["video"]["kept"] == usage["visual_tokens"]["video"]["original"]


def test_a_tower_that_takes_whole_images_alone_refuses(pruned: Server) -> None:
    answer = pruned.post(photo_question(0), vtprune=HALF)
    assert answer.status_code == 400
    assert "prunes before the tower" in answer.json()["error"]["message"]
    assert pruned.text(photo_question(0))
