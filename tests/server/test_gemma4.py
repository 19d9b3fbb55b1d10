"""Gemma 4 over HTTP: what a request may say of an image's size, videos that stay whole, and what is
refused. Its answers are compared in `test_crop_families`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from halves import assert_lies_on, explained
from media import clip, encode, image_part, noise, photo_question, text_part, video_part
from offered import assert_each_keeps, methods
from vllm_server import Server

pytestmark = pytest.mark.server

FILM = [video_part(clip(4)), text_part("What happens?")]


@pytest.fixture(scope="module")
def served(start_shared: Callable[..., Server]) -> Server:
    flags = ("--plugin", "vtprune", "--trust-request-mm-kwargs")
    return start_shared("gemma4", *flags, model="demo-gemma4")


@pytest.mark.parametrize(
    ("size", "most", "original"),
    [
        ((300, 300), None, 64),
        ((448, 140), None, 56),
        ((30, 2000), None, 68),
        ((300, 300), 280, 256),
        ((448, 140), 140, 126),
    ],
)
def test_usage_prompt_and_estimate_say_what_was_kept(
    served: Server, size: tuple[int, int], most: int | None, original: int
) -> None:
    """An image gets as many tokens as its shape lets it have of those it may have at most."""
    content = [image_part(encode(noise(*size)), "image/png"), text_part("What is this?")]
    more: Any = {} if most is None else {"mm_processor_kwargs": {"max_soft_tokens": most}}
    whole = served.ask(content, max_tokens=1, vtprune={"rate": 0}, **more)["usage"]
    for settings, kept in (({}, round(original / 2)), ({"tokens": 3, "method": "adafv"}, 3)):
        usage = served.ask(content, max_tokens=1, vtprune=settings, **more)["usage"]
        assert usage["visual_tokens"] == {"original": original, "kept": kept}
        assert whole["prompt_tokens"] - usage["prompt_tokens"] == original - kept
        if most is None:
            asked = {"images": [{"width": size[0], "height": size[1]}], "vtprune": settings}
            told = served.client.post("/vtprune/estimate", json=asked).json()
            assert (told["original"], told["kept"]) == (original, kept)


def test_every_method_that_is_offered_keeps_what_was_asked(served: Server) -> None:
    assert methods(served)[1] == {"pixels", "resize"}
    assert_each_keeps(served, photo_question(0), 9)


def test_the_overlay_lies_on_the_picture(served: Server) -> None:
    """Light where a token is kept, and there red on the left and blue on the right."""
    image = explained(served, 480, 320)
    (view,) = image["views"]
    assert (view["rows"], view["columns"]) == (6, 10)
    assert image["kept"] == view["kept"] and len(view["kept"]) == 24
    assert_lies_on(view, np.arange(60) % 10 < 5)


def test_a_video_is_refused_until_it_may_stay_whole(served: Server) -> None:
    answer = served.post(FILM)
    assert answer.status_code == 400
    assert "those of gemma4 cannot be pruned" in answer.json()["error"]["message"]
    whole = served.ask(FILM, vtprune={"rate": 0})
    assert served.ask(FILM, vtprune={"video_rate": 0})["choices"] == whole["choices"]
    both = [*FILM, *photo_question(0)]
    before = served.ask(both, max_tokens=1, vtprune={"rate": 0})["usage"]["prompt_tokens"]
    usage = served.ask(both, max_tokens=1, vtprune={"rate": 0.5, "video_rate": 0})["usage"]
    counts = usage["visual_tokens"]
    assert counts["video"]["kept"] == counts["video"]["original"] > 0
    assert before - usage["prompt_tokens"] == counts["original"] - counts["kept"] > 20


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"vtprune": {"tokens": 71}}, "tokens is 71; allowed: 1 to 70"),
        ({"vtprune": {"rate": 1}}, "rate is 1"),
        (
            {"vtprune": {"method": "resize"}},
            "method is 'resize', which shrinks the image before the tower, but the processor of "
            "this model does that; allowed: max_soft_tokens in mm_processor_kwargs",
        ),
        ({"mm_processor_kwargs": {"max_soft_tokens": 71}}, "max_soft_tokens"),
    ],
    ids=["tokens", "rate", "method", "size"],
)
def test_a_bad_request_is_answered_and_the_next_one_served(
    served: Server, body: dict[str, Any], sentence: str
) -> None:
    answer = served.post(photo_question(0), **body)
    assert answer.status_code == 400, answer.text
    assert sentence in answer.json()["error"]["message"]
    assert served.ask(photo_question(0), max_tokens=1)
