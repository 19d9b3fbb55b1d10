"""Models that read documents, over HTTP: a server that nobody told anything drops what is empty,
and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from halves import assert_lies_on, explained
from media import encode, image_part, noise, photo_question, text_part
from nightly import NIGHTLY
from PIL import Image, ImageDraw, ImageFont
from shared_servers import SharedServers
from vllm_server import Server

pytestmark = pytest.mark.server

CHECKPOINTS = [
    "demo-glm-ocr",
    "demo-lightonocr",
    *(pytest.param(each, marks=NIGHTLY) for each in ("demo-paddleocr", "demo-dots-ocr")),
]
"""In every run one with a merger and positions of three dimensions, and one with breaks."""
OWN_CODE = {"demo-dots-ocr": ["--trust-remote-code"]}
"""Those with a configuration of the checkpoint's."""
LONG = "Say exactly what stands where, beginning on the left and going slowly to the right. " * 5
SIDE = 448


@dataclass(frozen=True)
class Pair:
    """The same model with and without vtprune."""

    model: str
    pruned: Server
    stock: Server


@pytest.fixture(scope="module", params=CHECKPOINTS)
def pair(request: pytest.FixtureRequest, servers: SharedServers) -> Iterator[Pair]:
    model, flags = request.param, ["--enforce-eager", *OWN_CODE.get(request.param, ())]
    with (
        servers.use(f"{model}-pruned", "--plugin", "vtprune", *flags, model=model) as pruned,
        servers.use(f"{model}-stock", *flags, model=model, VLLM_PLUGINS="none") as stock,
    ):
        yield Pair(model, pruned, stock)


def _page() -> Image.Image:
    """Two lines and a rule under them, on an otherwise empty page."""
    image = Image.new("RGB", (SIDE, SIDE), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(20)
    for line in range(2):
        draw.text((30, 30 + 26 * line), f"Total of line {line}: {17 * line}.90", "black", font)
    draw.line((30, 110, SIDE - 30, 110), "black", 2)
    return image


def _of(image: Image.Image, question: str = "What is the total?") -> list[dict[str, Any]]:
    return [image_part(encode(image), "image/png"), text_part(question)]


PAGE, NOISE = _of(_page()), _of(noise(300, 300))
CONTENTS: list[Any] = [
    PAGE,
    *(photo_question(index, LONG) for index in range(2, 4)),
    _of(noise(448, 140), LONG),
    _of(noise(120, 500), LONG),
    [*_of(_page(), "First."), *photo_question(0, "Second."), *NOISE],
    "Say something about nothing.",
]


def _counts(server: Server, content: Any, **settings: Any) -> dict[str, Any]:
    body = {"vtprune": settings} if settings else {}
    found: dict[str, Any] = server.ask(content, max_tokens=1, **body)["usage"]["visual_tokens"]
    return found


def test_what_is_empty_goes_unasked_and_nothing_else(pair: Pair) -> None:
    page = _counts(pair.pruned, PAGE)
    assert page["floor"] == "content"
    assert 0.15 * page["original"] < page["kept"] < 0.5 * page["original"]
    whole, less = (
        server.ask(PAGE, max_tokens=1)["usage"]["prompt_tokens"]
        for server in (pair.stock, pair.pruned)
    )
    assert whole - less == page["original"] - page["kept"]
    grain = _counts(pair.pruned, NOISE)
    assert grain["kept"] == grain["original"]
    body = {"images": [{"url": PAGE[0]["image_url"]["url"]}]}
    told = pair.pruned.client.post("/vtprune/estimate", json=body).json()
    assert told["images"][0] == page
    said = (
        "pixels keeps 13 of 256 visual tokens per image (rate 0.9492) if all of it is plain, else"
    )
    assert said in pair.pruned.log


def test_what_is_kept_is_what_is_written(pair: Pair) -> None:
    """Every token that ink touches: of a rule, too, whose pieces are all alike."""
    body = {"messages": [{"role": "user", "content": PAGE}]}
    (image,) = pair.pruned.client.post("/vtprune/explain", json=body).json()["images"]
    (view,) = image["views"]
    ink = np.asarray(_page().convert("L")) < 128
    edge = SIDE // view["rows"]
    assert view["rows"] == view["columns"] == SIDE / edge
    written = ink.reshape(view["rows"], edge, view["columns"], edge).any(axis=(1, 3)).flatten()
    assert set(np.flatnonzero(written)) <= set(view["kept"])


def test_rate_0_is_stock_to_the_byte_and_keeping_all_says_the_same(pair: Pair) -> None:
    body = {"logprobs": True, "top_logprobs": 5, "return_token_ids": True}
    for content in CONTENTS:
        pair.stock.forget()
        pair.pruned.forget()
        expected = pair.stock.ask(content, **body)["choices"]
        off = pair.pruned.ask(content, vtprune={"rate": 0}, **body)["choices"]
        assert json.dumps(off) == json.dumps(expected)
        for method in ("pixels", "vispruner"):
            every = pair.pruned.text(content, vtprune={"rate": 1e-12, "method": method})
            assert every == expected[0]["message"]["content"]


@pytest.mark.parametrize(
    "settings",
    [{}, {"rate": 0.5, "floor": "off"}, {"rate": 0.5, "method": "vispruner"}],
    ids=["own", "pixels", "vispruner"],
)
def test_the_same_answer_alone_at_once_and_on_every_hit(
    pair: Pair, settings: dict[str, Any]
) -> None:
    body = {"vtprune": settings} if settings else {}
    alone = []
    for content in CONTENTS:
        pair.pruned.forget()
        alone.append(pair.pruned.text(content, **body))
    pair.pruned.forget()
    assert pair.pruned.texts_at_once(CONTENTS, **body) == alone
    before = pair.pruned.metric("vllm:prefix_cache_hits_total")
    assert [pair.pruned.text(content, **body) for content in CONTENTS] == alone
    assert pair.pruned.metric("vllm:prefix_cache_hits_total") > before
    assert len(set(alone)) == len(alone), "answers depend on the picture"


def test_a_request_may_name_a_budget_and_a_method(pair: Pair) -> None:
    original = _counts(pair.pruned, NOISE, rate=0)["original"]
    assert _counts(pair.pruned, NOISE, rate=0.5)["kept"] == original, "nothing of it is plain"
    cards = pair.pruned.client.get("/vtprune/methods").json()["methods"]
    allowed = {card["name"] for card in cards if card["allowed"]}
    assert allowed >= {"pixels", "vispruner", "adafv", "cdpruner", "scope", "divprune"}
    for name in sorted(allowed - {"adafv-ref"}):
        settings = {"method": name, "tokens": 9, "floor": "off"}
        assert _counts(pair.pruned, NOISE, **settings)["kept"] == 9, name


def test_the_overlay_lies_on_the_picture(pair: Pair) -> None:
    image = explained(pair.pruned, 448, 224)
    (view,) = image["views"]
    assert image["original"] == view["rows"] * view["columns"]
    assert image["kept"] == view["kept"] == sorted(set(view["kept"]))
    assert len(image["kept"]) == round(0.4 * image["original"])
    places = np.arange(image["original"]) % view["columns"]
    assert_lies_on(view, places < view["columns"] // 2)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"tokens": 100_000}, "tokens is 100000; allowed: 1 to 256"),
        ({"rate": 1}, "rate is 1"),
        ({"method": "resize"}, "method is 'resize', which shrinks the image before the tower"),
        ({"floor": "edges"}, "floor is 'edges'"),
    ],
    ids=["tokens", "rate", "method", "floor"],
)
def test_a_bad_request_is_answered_and_the_next_one_served(
    pair: Pair, settings: dict[str, Any], sentence: str
) -> None:
    answer = pair.pruned.post(PAGE, vtprune=settings)
    assert answer.status_code == 400
    assert sentence in answer.json()["error"]["message"]
    assert pair.pruned.ask(PAGE, max_tokens=1)
