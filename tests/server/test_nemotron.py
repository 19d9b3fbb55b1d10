"""Nemotron Nano VL over HTTP, every night: sizes, tiles, what stays whole, and what is refused. Its
answers are compared in `test_crop_families`.

Without a cache of prompts, with which vLLM's Mamba ends an engine on a CPU.
"""

from __future__ import annotations

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

FILM = [video_part(clip(4)), text_part("What happens?")]
FLAGS = ("--plugin", "vtprune", "--trust-remote-code", "--dtype", "bfloat16")


def _server(start_shared: Callable[..., Server], model: str) -> Server:
    more = ("--no-enable-prefix-caching", "--trust-request-mm-kwargs")
    return start_shared(model, *FLAGS, *more, model=model)


@pytest.fixture(scope="module")
def of_any_shape(start_shared: Callable[..., Server]) -> Server:
    return _server(start_shared, "demo-nemotron-omni")


@pytest.fixture(scope="module")
def tiled(start_shared: Callable[..., Server]) -> Server:
    return _server(start_shared, "demo-nemotron")


def _check_counts(served: Server, size: tuple[int, int], original: int, **more: Any) -> None:
    content = [image_part(encode(noise(*size)), "image/png"), text_part("What is this?")]
    whole = served.ask(content, max_tokens=1, vtprune={"rate": 0}, **more)["usage"]
    for settings, kept in (({}, round(original / 2)), ({"tokens": 3, "method": "divprune"}, 3)):
        usage = served.ask(content, max_tokens=1, vtprune=settings, **more)["usage"]
        assert usage["visual_tokens"] == {"original": original, "kept": kept}
        assert whole["prompt_tokens"] - usage["prompt_tokens"] == original - kept
        if not more:
            asked = {"images": [{"width": size[0], "height": size[1]}], "vtprune": settings}
            told = served.client.post("/vtprune/estimate", json=asked).json()
            assert (told["original"], told["kept"]) == (original, kept)


@pytest.mark.parametrize(
    ("size", "original"), [((320, 320), 100), ((448, 140), 70), ((900, 900), 256), ((16, 20), 16)]
)
def test_usage_and_estimate_of_any_shape(
    of_any_shape: Server, size: tuple[int, int], original: int
) -> None:
    _check_counts(of_any_shape, size, original)


@pytest.mark.parametrize(("most", "original"), [(1, 16), (6, 16 * 7)])
def test_a_request_says_how_many_tiles(tiled: Server, most: int, original: int) -> None:
    _check_counts(tiled, (480, 320), original, mm_processor_kwargs={"max_num_tiles": most})


def test_every_method_that_is_offered_keeps_what_was_asked(
    of_any_shape: Server, tiled: Server
) -> None:
    assert methods(of_any_shape)[1] == {"pixels", "resize"}
    assert methods(tiled)[1] >= {"resize"}
    for each in (of_any_shape, tiled):
        assert_each_keeps(each, photo_question(0), 9)


def test_the_overlay_lies_on_the_picture(of_any_shape: Server) -> None:
    """Light where a token is kept, and there red on the left and blue on the right."""
    image = explained(of_any_shape, 512, 320)
    (view,) = image["views"]
    assert (view["rows"], view["columns"]) == (10, 16)
    assert_lies_on(view, np.arange(160) % 16 < 8)


def test_a_video_is_refused_until_it_may_stay_whole(of_any_shape: Server) -> None:
    answer = of_any_shape.post(FILM)
    assert answer.status_code == 400
    assert "those of nemotron_vl cannot be pruned" in answer.json()["error"]["message"]
    both = [*FILM, *photo_question(0)]
    before = of_any_shape.ask(both, max_tokens=1, vtprune={"rate": 0})["usage"]["prompt_tokens"]
    usage = of_any_shape.ask(both, max_tokens=1, vtprune={"rate": 0.5, "video_rate": 0})["usage"]
    counts = usage["visual_tokens"]
    assert counts["video"]["kept"] == counts["video"]["original"] > 0
    assert before - usage["prompt_tokens"] == counts["original"] - counts["kept"] > 20


def test_what_no_picture_has_is_a_400(of_any_shape: Server, tiled: Server) -> None:
    for served, settings, said in (
        (of_any_shape, {"tokens": 257}, "tokens is 257; allowed: 1 to 256"),
        (of_any_shape, {"method": "resize"}, "allowed: max_num_patches in config.json"),
        (tiled, {"method": "resize"}, "but an image of this model is tiles"),
    ):
        answer = served.post(photo_question(0), vtprune=settings)
        assert answer.status_code == 400
        assert said in answer.json()["error"]["message"]
