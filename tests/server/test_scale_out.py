"""Scale-out: one server renders a prompt, without an engine, and another one answers its tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import httpx
import pytest
from media import PHOTOS, clip, data_url, image_part, photo_question, text_part, video_part
from renderer import Renderer
from vllm_server import Server

pytestmark = pytest.mark.server

MODEL = "demo-qwen2.5"
FILM = [video_part(clip(8)), text_part("what happens?")]
BODY = {"model": "demo", "max_tokens": 6, "temperature": 0, "ignore_eos": True}


class Fleet(NamedTuple):
    """A server that answers, and two that render."""

    engine: Server
    ours: Renderer
    stock: Renderer

    def generate(self, rendered: dict[str, Any]) -> httpx.Response:
        return self.engine.client.post("/inference/v1/generate", json=rendered)

    def tokens(self, rendered: dict[str, Any]) -> list[int]:
        answer = self.generate(rendered)
        assert answer.status_code == 200, answer.text
        found: list[int] = answer.json()["choices"][0]["token_ids"]
        return found


@pytest.fixture(scope="module")
def fleet(
    start_shared: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    logs, ours = tmp_path_factory.mktemp("renderers"), ["--plugin", "vtprune"]
    with ExitStack() as stack:
        engine = start_shared("scale-out", *ours, "--enable-scale-out", model=MODEL)
        renderer = stack.enter_context(Renderer(logs / "ours.log", MODEL, *ours))
        stock = Renderer(logs / "stock.log", MODEL, VLLM_PLUGINS="none")
        yield Fleet(engine, renderer, stack.enter_context(stock))


@pytest.mark.parametrize("content", [photo_question(0), FILM], ids=["picture", "video"])
@pytest.mark.parametrize(
    "settings", [{}, {"tokens": 9}, {"method": "cdpruner", "rate": 0.7}, {"rate": 0}], ids=str
)
def test_what_ours_rendered_is_answered_as_a_chat(
    fleet: Fleet, content: Any, settings: dict[str, Any]
) -> None:
    chat = fleet.engine.ask(content, **BODY, vtprune=settings, return_token_ids=True)
    fleet.engine.forget()
    rendered = fleet.ours.render(content, vtprune=settings).json()
    assert len(rendered["token_ids"]) == chat["usage"]["prompt_tokens"]
    assert fleet.tokens(rendered) == chat["choices"][0]["token_ids"]


def test_a_prompt_is_counted_where_it_is_rendered(fleet: Fleet) -> None:
    def images() -> list[float]:
        text = httpx.get(f"{fleet.ours.url}/metrics", timeout=60).text
        lines = [line for line in text.splitlines() if line.startswith("vtprune_images_total{")]
        there = sum(fleet.engine.metrics("vtprune_images_total").values())
        return [sum(float(line.rpartition(" ")[2]) for line in lines), there]

    before = images()
    fleet.tokens(fleet.ours.render(photo_question(0)).json())
    assert images() == [before[0] + 1, before[1]]


def test_a_renderer_refuses_what_a_server_refuses(fleet: Fleet) -> None:
    answer = fleet.ours.render(photo_question(0), vtprune={"rate": 2})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("vtprune: rate is 2; it should be")


@pytest.mark.parametrize(
    ("content", "named"),
    [(photo_question(0), "image 0"), (FILM, "video 0")],
    ids=["picture", "video"],
)
def test_what_stock_rendered_is_refused(fleet: Fleet, content: Any, named: str) -> None:
    """It would be served unpruned, and nobody would know."""
    rendered = fleet.stock.render(content).json()
    answer = fleet.generate(rendered)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == "features"
    assert error["message"].startswith(
        f"features: {named} was rendered without vtprune, so that it would be served unpruned; "
        "allowed: what a server with --plugin vtprune rendered, at rate 0 too"
    )
    assert fleet.engine.text(content), "the engine is there"


@pytest.mark.parametrize(
    "said", [{"vtprune": {"rate": 0}}, {"vtprune": {"rate": 90}}, {"vtprun": {}}], ids=str
)
def test_a_route_that_reads_no_settings_refuses_them_where_there_is_no_engine(
    fleet: Fleet, said: dict[str, Any]
) -> None:
    """Nobody would know that a picture was rendered otherwise than was asked for."""
    messages = [{"role": "user", "content": "What is the colour of the sky?"}]
    for route in ("/v1/messages/render", "/v1/completions/render"):
        body = {"model": "demo", "max_tokens": 4, "messages": messages, "prompt": "A cat", **said}
        error = httpx.post(f"{fleet.ours.url}{route}", json=body, timeout=60).json()["error"]
        assert (error["code"], error["param"]) == (400, "vtprune")
    told = httpx.get(f"{fleet.ours.url}/vtprune/config", timeout=60).json()["error"]["message"]
    assert told == "this server has no engine that takes images; allowed: one that does"


def test_a_text_from_anywhere_is_answered(fleet: Fleet) -> None:
    content = "What is the colour of the sky?"
    whole = fleet.tokens(fleet.stock.render(content).json())
    assert fleet.tokens(fleet.ours.render(content).json()) == whole


def test_pictures_beside_tokens_are_pruned_as_the_server_says(fleet: Fleet) -> None:
    """The client sends the tokens and the files; the server makes the prompt."""
    content = [image_part(PHOTOS[0].read_bytes()), text_part("what is this?")]
    chat = fleet.engine.ask(content, **BODY, return_token_ids=True)
    rendered = fleet.stock.render(content).json()
    (place,) = rendered.pop("features")["mm_placeholders"]["image"]
    ids, first = rendered["token_ids"], place["offset"]
    one = [*ids[: first + 1], *ids[first + place["length"] :]]
    files = [{"type": "image_url", "url": data_url(PHOTOS[0].read_bytes())}]
    kept = fleet.engine.metrics("vtprune_visual_tokens_kept_total")
    asked = {**rendered, "token_ids": one, "content_parts": files}
    assert fleet.tokens(asked) == chat["choices"][0]["token_ids"]
    more = sum(fleet.engine.metrics("vtprune_visual_tokens_kept_total").values())
    assert more - sum(kept.values()) == chat["usage"]["visual_tokens"]["kept"]
