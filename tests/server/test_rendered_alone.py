"""Models whose decoders vLLM runs on GPUs alone, over HTTP: servers that render, with and without
vtprune."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest
from contract import ENCODED
from media import clip, photo_question, text_part, video_part
from nightly import NIGHTLY
from renderer import Renderer

pytestmark = pytest.mark.server

FILM = [video_part(clip(8)), text_part("what happens?")]


class Pair(NamedTuple):
    """Two that render."""

    name: str
    ours: Renderer
    stock: Renderer


FIRST, *OTHERS = ENCODED
MODELS = [FIRST, *(pytest.param(name, marks=NIGHTLY) for name in OTHERS)]
"""Two servers of each start, half a minute."""


@pytest.fixture(scope="module", params=MODELS)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    logs, name = tmp_path_factory.mktemp("renderers"), request.param
    flags = ["--mm-encoder-only"]  # or vLLM contradicts itself about their cache on a CPU
    ours = Renderer(logs / "ours.log", name, "--plugin", "vtprune", *flags)
    stock = Renderer(logs / "stock.log", name, *flags, VLLM_PLUGINS="none")
    with ExitStack() as stack:
        yield Pair(name, stack.enter_context(ours), stack.enter_context(stock))


def _features(answer: dict[str, Any]) -> list[int]:
    """Lengths of the places of the items."""
    places = answer["features"]["mm_placeholders"].values()
    return [place["length"] for each in places for place in each]


def test_a_chat_is_pruned_as_asked_and_off_is_stock(pair: Pair) -> None:
    for content in (photo_question(0), [*photo_question(0), *photo_question(1)]):
        stock = pair.stock.render(content).json()
        assert (
            pair.ours.render(content, vtprune={"rate": 0}).json()["token_ids"]
            == (stock["token_ids"])
        )
        pruned = pair.ours.render(content, vtprune={"tokens": 9}).json()
        half = pair.ours.render(content).json()
        lost = [
            whole - kept for whole, kept in zip(_features(stock), _features(pruned), strict=True)
        ]
        assert len(stock["token_ids"]) - len(pruned["token_ids"]) == sum(lost)
        assert len(pruned["token_ids"]) < len(half["token_ids"]) < len(stock["token_ids"])


def test_what_cannot_be_served_is_a_400(pair: Pair) -> None:
    for settings, said in (
        ({"rate": 2}, "rate is 2"),
        ({"method": "resize"}, "method is 'resize', which shrinks"),
    ):
        answer = pair.ours.render(photo_question(0), vtprune=settings)
        assert answer.status_code == 400 and said in answer.text
    film = pair.ours.render(FILM)
    assert film.status_code == (400 if pair.name == "demo-kimi-k3" else 200), film.text
