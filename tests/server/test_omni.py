"""Qwen-Omni over HTTP: counts, the overlay, videos, and what is refused.

Audio, alone or of a video, is sent to the engine itself (`test_relatives`), not over HTTP: decoding
it takes packages that vLLM for CPUs does not bring.
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

pytestmark = pytest.mark.server

CHECKPOINTS = ["demo-qwen2.5-omni", pytest.param("demo-qwen3-omni", marks=NIGHTLY)]
FILM = [video_part(clip(8)), text_part("What happens?")]


@pytest.fixture(scope="module", params=CHECKPOINTS)
def served(request: pytest.FixtureRequest, start_shared: Callable[..., Server]) -> Server:
    return start_shared(request.param, "--plugin", "vtprune", model=request.param)


@pytest.mark.parametrize("size", [(300, 300), (448, 140), (30, 40)])
def test_usage_prompt_and_estimate_say_what_was_kept(served: Server, size: tuple[int, int]) -> None:
    content = [image_part(encode(noise(*size)), "image/png"), text_part("What is this?")]
    whole = served.ask(content, max_tokens=1, vtprune={"rate": 0})["usage"]["prompt_tokens"]
    for settings in ({}, {"rate": 0.75}, {"tokens": 3, "method": "adafv"}):
        asked = {"images": [{"width": size[0], "height": size[1]}], "vtprune": settings}
        told = served.client.post("/vtprune/estimate", json=asked).json()
        usage = served.ask(content, max_tokens=1, vtprune=settings)["usage"]
        counts = usage["visual_tokens"]
        assert counts == {name: told[name] for name in ("original", "kept")}
        kept = settings.get("tokens", round(counts["original"] * (1 - settings.get("rate", 0.5))))
        assert counts["kept"] == kept
        assert whole - usage["prompt_tokens"] == counts["original"] - kept


def test_every_method_that_is_offered_keeps_what_was_asked(
    served: Server, request: pytest.FixtureRequest
) -> None:
    """Qwen3-Omni's tower prepares nothing that could be thinned."""
    whole = {"pixels"} if request.node.callspec.params["served"] == "demo-qwen3-omni" else set()
    assert methods(served)[1] == {"resize", *whole}
    for importance in ("attention", "merger_norm"):
        assert_each_keeps(served, photo_question(0), 9, importance=importance)


def test_another_method_finds_the_features_and_the_same_answer(served: Server) -> None:
    served.forget()
    alone = [served.text(photo_question(index)) for index in (0, 1)]
    hits = served.metric("vtprune_feature_cache_hits_total")
    assert served.text(photo_question(0), vtprune={"method": "uniform"}) != alone[0]
    assert served.metric("vtprune_feature_cache_hits_total") == hits + 1
    assert served.texts_at_once([photo_question(0), photo_question(1)]) == alone
    served.forget()
    assert served.texts_at_once([photo_question(0), photo_question(1)]) == alone


def test_the_overlay_lies_on_the_picture(served: Server) -> None:
    """Light where a token is kept, and there red on the left and blue on the right."""
    image = explained(served, 448, 224)
    (view,) = image["views"]
    columns = view["columns"]
    assert (view["rows"], columns) in {(8, 16), (7, 14)}
    assert image["kept"] == view["kept"]
    assert_lies_on(view, np.arange(view["rows"] * columns) % columns < columns // 2)


def test_a_video_has_one_budget_over_its_frames(served: Server) -> None:
    whole = served.ask(FILM, max_tokens=1, vtprune={"rate": 0})["usage"]
    original = whole["visual_tokens"]["video"]["original"]
    budgets: list[tuple[dict[str, Any], int]] = [
        ({}, round(original / 2)),
        ({"tokens": 7}, 7),
        ({"video_method": "evs", "video_rate": 0.75}, round(original / 4)),
        ({"video_method": "vidcom2", "tokens": 40}, 40),
    ]
    for settings, kept in budgets:
        usage = served.ask(FILM, max_tokens=1, vtprune=settings)["usage"]
        assert usage["visual_tokens"]["video"] == {"original": original, "kept": kept}
        assert whole["prompt_tokens"] - usage["prompt_tokens"] == original - kept


def test_a_method_that_shrinks_pictures_is_refused(served: Server) -> None:
    answer = served.post(photo_question(0), vtprune={"method": "resize"})
    assert answer.status_code == 400
    assert "max_pixels in mm_processor_kwargs" in answer.json()["error"]["message"]
