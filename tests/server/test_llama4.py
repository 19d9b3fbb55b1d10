"""Llama 4 over HTTP: tiles with separators between, padded where the picture ends. Its answers are
compared in `test_crop_families`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from halves import assert_lies_on, explained
from media import encode, image_part, noise, photo_question, text_part
from nightly import NIGHTLY
from offered import assert_each_keeps, methods
from vllm_server import Server

pytestmark = [pytest.mark.server, NIGHTLY]


@pytest.fixture(scope="module")
def served(start_shared: Callable[..., Server]) -> Server:
    return start_shared("llama4", "--plugin", "vtprune", model="demo-llama4")


def _question(width: int, height: int) -> list[Any]:
    return [image_part(encode(noise(width, height)), "image/png"), text_part("What is this?")]


@pytest.mark.parametrize(
    ("size", "original"),
    [((112, 112), 16), ((300, 100), 64), ((336, 112), 64), ((448, 140), 144), ((260, 150), 112)],
    ids=str,
)
def test_usage_prompt_and_estimate_say_what_was_kept(
    served: Server, size: tuple[int, int], original: int
) -> None:
    """A small picture is one tile; others have a tile more for the whole picture."""
    content = _question(*size)
    whole = served.ask(content, max_tokens=1, vtprune={"rate": 0})["usage"]
    for settings, kept in (
        ({}, original // 2),
        ({"rate": 0.75}, original // 4),
        ({"tokens": 3, "method": "adafv"}, 3),
    ):
        usage = served.ask(content, max_tokens=1, vtprune=settings)["usage"]
        assert usage["visual_tokens"] == {"original": original, "kept": kept}
        assert whole["prompt_tokens"] - usage["prompt_tokens"] == original - kept
        asked = {"images": [{"width": size[0], "height": size[1]}], "vtprune": settings}
        told = served.client.post("/vtprune/estimate", json=asked).json()
        assert (told["original"], told["kept"]) == (original, kept)


def test_every_method_that_is_offered_keeps_what_was_asked(served: Server) -> None:
    assert {"scope", "vispruner", "cdpruner", "divprune", "random"} <= methods(served)[0]
    assert_each_keeps(served, _question(260, 150), 50)


def test_the_overlay_lies_on_the_picture_and_padding_is_dropped(served: Server) -> None:
    """Two tiles side by side, of which the second has two columns of the picture, and the whole
    picture; left red and right blue."""
    image = explained(served, 160, 112, tokens=20)
    assert [len(view["kept"]) for view in image["views"]] == [8, 4, 8]
    columns = np.arange(16) % 4
    for view, is_left, shows in zip(
        image["views"],
        (columns < 3, columns < 0, columns < 2),
        (columns < 4, columns < 2, columns < 4),
        strict=True,
    ):
        assert shows[view["kept"]].all()
        assert_lies_on(view, is_left)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"tokens": 273}, "tokens is 273; allowed: 1 to 272"),
        ({"rate": 1}, "rate is 1"),
        ({"method": "visionzip"}, "method is 'visionzip', which works on an image of one grid"),
        ({"method": "resize"}, "method is 'resize'"),
    ],
    ids=["tokens", "rate", "method", "resize"],
)
def test_a_bad_request_is_answered_and_the_next_one_served(
    served: Server, settings: dict[str, Any], sentence: str
) -> None:
    answer = served.post(photo_question(0), vtprune=settings)
    assert answer.status_code == 400, answer.text
    assert sentence in answer.json()["error"]["message"]
    assert served.ask(photo_question(0), max_tokens=1)
