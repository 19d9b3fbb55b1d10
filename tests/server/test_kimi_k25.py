"""Kimi-K2.5 over HTTP, one request at a time, as latent attention has it on a CPU: stock's answers
at rate 0, counts, names and settings of images, and videos, which are refused. What the decoder
gets is compared in `test_crop_families`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from halves import assert_lies_on, explained
from media import clip, encode, image_part, noise, photo_question, text_part, video_part
from nightly import NIGHTLY
from offered import assert_each_keeps, methods
from vllm_server import Server

pytestmark = [pytest.mark.server, NIGHTLY]

NAME = "demo-kimi-k2.5"


@pytest.fixture(scope="module")
def served(start_shared: Callable[..., Server]) -> Server:
    return start_shared("kimi-k2.5", "--plugin", "vtprune", model=NAME)


def _part(width: int, height: int) -> dict[str, Any]:
    return image_part(encode(noise(width, height)), "image/png")


def test_rate_0_is_stock_to_the_byte_and_keeping_all_says_the_same(
    served: Server, start: Callable[..., Server]
) -> None:
    stock = start("kimi-k2.5-stock", model=NAME, VLLM_PLUGINS="none")
    body = {"logprobs": True, "top_logprobs": 5, "return_token_ids": True}
    two = [_part(300, 200), text_part("or"), _part(100, 300), text_part("?")]
    for content in (photo_question(0), two, "Nothing."):
        expected = stock.ask(content, **body)
        off = served.ask(content, vtprune={"rate": 0}, **body)
        for key in ("choices", "prompt_token_ids"):
            assert json.dumps(off[key]) == json.dumps(expected[key])
        every = served.text(content, vtprune={"rate": 1e-12})
        assert every == expected["choices"][0]["message"]["content"]
    half = served.text(photo_question(0))
    assert half != stock.text(photo_question(0)), "the answer depends on the tokens of a picture"


@pytest.mark.parametrize(
    ("size", "original"), [((300, 300), 121), ((448, 140), 80), ((30, 1500), 108)], ids=str
)
def test_usage_prompt_and_estimate_say_what_was_kept(
    served: Server, size: tuple[int, int], original: int
) -> None:
    content = [_part(*size), text_part("What is this?")]
    whole = served.ask(content, max_tokens=1, vtprune={"rate": 0})["usage"]
    for settings, kept in (
        ({}, round(original / 2)),
        ({"tokens": 3, "method": "adafv"}, 3),
        ({"tokens": 9, "importance": "merger_norm"}, 9),
    ):
        usage = served.ask(content, max_tokens=1, vtprune=settings)["usage"]
        assert usage["visual_tokens"] == {"original": original, "kept": kept}
        assert whole["prompt_tokens"] - usage["prompt_tokens"] == original - kept
        asked = {"images": [{"width": size[0], "height": size[1]}], "vtprune": settings}
        told = served.client.post("/vtprune/estimate", json=asked).json()
        assert (told["original"], told["kept"]) == (original, kept)


def test_the_detail_of_an_image_counts(served: Server) -> None:
    content, kept = [_part(300, 300), text_part("What is this?")], []
    for level in ("low", "auto", "high"):
        content[0]["image_url"]["detail"] = level
        usage = served.ask(content, max_tokens=1, vtprune={"rate": 0.7})["usage"]
        kept.append(usage["visual_tokens"]["kept"])
    assert kept == sorted(set(kept))


def test_every_method_that_is_offered_keeps_what_was_asked(served: Server) -> None:
    assert methods(served)[1] == {"pixels", "resize"}
    assert_each_keeps(served, photo_question(0), 9)


def test_a_known_image_can_be_named_instead_of_sent_beside_one_without_a_name(
    served: Server,
) -> None:
    named = {**_part(300, 200), "uuid": "wide"}
    served.ask([named, text_part("What is it?")], max_tokens=1)
    both = [{**named, "image_url": None}, text_part("or"), _part(100, 300), text_part("?")]
    assert served.text(both) == served.text([named, *both[1:]])


def test_the_overlay_lies_on_the_picture(served: Server) -> None:
    (view,) = explained(served, 448, 224)["views"]
    assert (view["rows"], view["columns"]) == (8, 16)
    assert_lies_on(view, np.arange(128) % 16 < 8)


@pytest.mark.parametrize("settings", [{}, {"rate": 0}, {"video_rate": 0}], ids=str)
def test_a_video_is_refused(served: Server, settings: dict[str, Any]) -> None:
    """Whatever is asked for: stock vLLM's front end makes no parts of it either."""
    answer = served.post([video_part(clip(4)), text_part("What?")], vtprune=settings)
    assert answer.status_code == 400, answer.text
    assert "At most 0 video(s)" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"rate": 1}, "rate is 1"),
        ({"tokens": 4000}, "tokens is 4000; allowed: 1 to "),
        ({"method": "resize"}, "allowed: in_patch_limit in preprocessor_config.json"),
    ],
    ids=["rate", "tokens", "method"],
)
def test_a_bad_request_is_answered_and_the_next_one_served(
    served: Server, settings: dict[str, Any], sentence: str
) -> None:
    answer = served.post(photo_question(0), vtprune=settings)
    assert answer.status_code == 400, answer.text
    assert sentence in answer.json()["error"]["message"]
    assert served.ask(photo_question(0), max_tokens=1)
