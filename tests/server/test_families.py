"""What every family does over HTTP, over checkpoints of true geometry: counts, off, caches, views.

LLaVA-1.5 and LLaVA-NeXT have files of their own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from halves import assert_lies_on, explained
from media import (
    PHOTOS,
    clip,
    encode,
    image_part,
    noise,
    photo_question,
    text_part,
    video_part,
)
from nightly import NIGHTLY
from norm_oracle import last_norms
from PIL import Image
from shared_servers import SharedServers
from vllm_server import Server

from vllm_pruner.layout.shares import frame_shares
from vllm_pruner.settings.defaults import DEFAULT_METHOD

pytestmark = pytest.mark.server

CHECKPOINTS = [pytest.param("demo-glm4v", marks=NIGHTLY), "demo-qwen2.5", "demo-qwen3"]
LONG = "Say exactly what stands where, beginning on the left and going slowly to the right. " * 5
SIZES = {"square": (300, 300), "wide": (448, 140), "tall": (120, 500), "tiny": (30, 40)}


def _picture(size: str, question: str = "What is this?") -> list[dict[str, Any]]:
    return [image_part(encode(noise(*SIZES[size])), "image/png"), text_part(question)]


CLIP = clip(8)
FILM = [video_part(CLIP), text_part(LONG)]
CONTENTS: list[Any] = [
    *(photo_question(index, LONG) for index in range(2, 5)),
    *(_picture(size, LONG) for size in SIZES),
    [*_picture("tall", "First."), *photo_question(0, "Second."), *_picture("wide", LONG)],
    "Say something about nothing.",
    FILM,
]


@dataclass(frozen=True)
class Pair:
    """The same model with and without vtprune."""

    model: str
    pruned: Server
    stock: Server


@pytest.fixture(scope="module", params=CHECKPOINTS)
def pair(request: pytest.FixtureRequest, servers: SharedServers) -> Iterator[Pair]:
    model, eager = request.param, "--enforce-eager"
    flags = ["--plugin", "vtprune", "--prune-rate", "0.5", "--trust-request-chat-template", eager]
    with (
        servers.use(f"{model}-pruned", *flags, model=model) as pruned,
        servers.use(f"{model}-stock", eager, model=model, VLLM_PLUGINS="none") as stock,
    ):
        yield Pair(model, pruned, stock)


def _fresh(server: Server, content: Any, **body: Any) -> str:
    server.forget()
    return server.text(content, **body)


def _estimate(server: Server, size: str, **more: Any) -> dict[str, int]:
    """What is told beforehand about a picture."""
    width, height = SIZES[size]
    body = {"images": [{"width": width, "height": height}], **more}
    answer = server.client.post("/vtprune/estimate", json=body).json()
    return {name: answer[name] for name in ("original", "kept")}


@pytest.mark.parametrize("size", SIZES)
def test_usage_and_prompt_say_what_was_kept(pair: Pair, size: str) -> None:
    unpruned = pair.stock.ask(_picture(size), max_tokens=1)["usage"]["prompt_tokens"]
    original = _estimate(pair.pruned, size)["original"]
    for settings, kept in [
        ({}, round(original / 2)),
        ({"rate": 0.75}, round(original / 4)),
        ({"tokens": 3}, min(3, original)),
        ({"tokens": 1}, 1),
        ({"tokens": 2, "method": "adafv"}, 2),
    ]:
        usage = pair.pruned.ask(_picture(size), max_tokens=1, vtprune=settings)["usage"]
        assert usage["visual_tokens"] == {"original": original, "kept": kept}
        assert unpruned - usage["prompt_tokens"] == original - kept


def test_the_word_detail_moves_the_rate(pair: Pair) -> None:
    kept = {}
    for level in ("low", "auto", "high"):
        content = _picture("square")
        content[0]["image_url"]["detail"] = level
        usage = pair.pruned.ask(content, max_tokens=1, vtprune={"rate": 0.7})["usage"]
        kept[level] = usage["visual_tokens"]["kept"]
    assert kept["low"] < kept["auto"] < kept["high"]


def test_rate_0_is_stock_to_the_byte_and_keeping_all_says_the_same(pair: Pair) -> None:
    """Keeping all takes the pruned path: order and positions have to be vLLM's own."""
    body = {"logprobs": True, "top_logprobs": 5, "return_token_ids": True}
    for content in CONTENTS:
        pair.stock.forget()
        pair.pruned.forget()
        expected = pair.stock.ask(content, **body)["choices"]
        off = pair.pruned.ask(content, vtprune={"rate": 0}, **body)["choices"]
        assert json.dumps(off) == json.dumps(expected)
        every = pair.pruned.text(content, vtprune={"rate": 1e-12})
        assert every == expected[0]["message"]["content"]


@pytest.mark.parametrize("method", [DEFAULT_METHOD, "adafv"])
def test_the_same_answer_alone_at_once_and_on_every_hit(pair: Pair, method: str) -> None:
    body = {"vtprune": {"method": method}}
    contents = CONTENTS
    alone = [_fresh(pair.pruned, content, **body) for content in contents]
    pair.pruned.forget()
    assert pair.pruned.texts_at_once(contents, **body) == alone
    before = pair.pruned.metric("vllm:prefix_cache_hits_total")
    assert [pair.pruned.text(content, **body) for content in contents] == alone
    assert pair.pruned.metric("vllm:prefix_cache_hits_total") > before
    assert len(set(alone)) == len(alone), "answers depend on the picture"


def test_another_rate_finds_the_features_and_no_other_cache(pair: Pair) -> None:
    pair.pruned.forget()
    answers, hits = set(), pair.pruned.metric("vtprune_feature_cache_hits_total")
    for rate in (0.3, 0.6, 0.9):
        answers.add(pair.pruned.text(photo_question(0, LONG), vtprune={"rate": rate}))
    assert len(answers) == 3
    assert pair.pruned.metric("vtprune_feature_cache_hits_total") == hits + 2


def test_every_method_that_is_offered_keeps_what_was_asked(pair: Pair) -> None:
    cards = pair.pruned.client.get("/vtprune/methods").json()["methods"]
    allowed = [card["name"] for card in cards if card["allowed"]]
    assert {"vispruner", "adafv", "cdpruner", "scope", "triad", "divprune"} <= set(allowed)
    for name in allowed:
        settings = {"method": name, "tokens": 9, "floor": "off"}  # that of `pixels` keeps all
        usage = pair.pruned.ask(_picture("square"), max_tokens=2, vtprune=settings)["usage"]
        counts = _estimate(pair.pruned, "square", vtprune=settings)
        assert usage["visual_tokens"] == counts, name
        assert counts["kept"] == 9 or name == "adafv-ref", "the published code keeps fewer"
    for card in cards:
        if not card["allowed"]:
            answer = pair.pruned.post(photo_question(1), vtprune={"method": card["name"]})
            assert answer.status_code == 400
            assert card["refused"] in answer.json()["error"]["message"]


def test_the_overlay_lies_on_the_picture(pair: Pair) -> None:
    """Light where a patch is kept, dark where it is not, and as the picture is in between."""
    image = explained(pair.pruned, 448, 224)
    (view,) = image["views"]
    assert image["original"] == view["rows"] * view["columns"] == len(view["importance"])
    assert image["kept"] == view["kept"] == sorted(set(view["kept"]))
    assert len(image["kept"]) == round(0.4 * image["original"])
    places = np.arange(image["original"]) % view["columns"]
    assert_lies_on(view, places < view["columns"] // 2)


def test_importance_may_be_the_norm_of_what_comes_to_the_merger(pair: Pair) -> None:
    """Of the tower's last layer by transformers, four patches a token, in raster order."""
    content, settings = photo_question(0, LONG), {"method": "attention", "rate": 0.5}
    body: Any = {"messages": [{"role": "user", "content": content}]}
    views = {}
    for importance in ("attention", "merger_norm"):
        body["vtprune"] = {**settings, "importance": importance}
        answer = pair.pruned.client.post("/vtprune/explain", json=body).json()
        (views[importance],) = answer["images"][0]["views"]
    view = views["merger_norm"]
    found = np.array(view["importance"])
    by_norm = np.sort(np.argsort(-found, kind="stable")[: round(len(found) / 2)])
    assert by_norm.tolist() == view["kept"] != views["attention"]["kept"]
    norms = last_norms(pair.model, Image.open(PHOTOS[0]).convert("RGB"))
    assert found == pytest.approx(norms, rel=2e-2)
    answers = [pair.pruned.text(content, vtprune={**settings, "importance": i}) for i in views]
    assert answers[0] != answers[1], "one is not found in the other's cache"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"tokens": 100_000}, "tokens is 100000; allowed: 1 to 256"),
        ({"rate": 1}, "rate is 1"),
        ({"method": "resize"}, "method is 'resize', which shrinks the image before the tower"),
    ],
    ids=["tokens", "rate", "method"],
)
def test_a_bad_request_is_answered_and_the_next_one_served(
    pair: Pair, settings: dict[str, Any], sentence: str
) -> None:
    answer = pair.pruned.post(_picture("wide"), vtprune=settings)
    assert answer.status_code == 400
    assert sentence in answer.json()["error"]["message"]
    assert pair.pruned.ask(_picture("wide"), max_tokens=1)


def _token(pair: Pair) -> str:
    return "<|image|>" if "glm" in pair.model else "<|image_pad|>"


def test_a_prompt_without_text_between_images_is_refused(pair: Pair) -> None:
    """Only a prompt in raw tokens can be one; unpruned it is served as by stock."""
    url = _picture("tiny")[0]["image_url"]["url"]
    message = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}] * 2}]
    token = _token(pair)
    template = (
        f"{{% for m in messages %}}{{% for p in m.content %}}{token}{{% endfor %}}{{% endfor %}}"
    )
    body = {"model": "demo", "messages": message, "max_tokens": 1, "chat_template": template}
    answer = pair.pruned.client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400, answer.text
    assert "no token between it and the next one" in answer.json()["error"]["message"]


def test_a_token_that_stands_for_an_image_is_no_text(pair: Pair) -> None:
    """vLLM puts the picture where the first one is spelled, beside the second."""
    token = _token(pair)
    content = [text_part(f"{token}{token}"), *_picture("tiny", LONG)]
    answer = pair.pruned.post(content)
    assert answer.status_code == 400, answer.text
    assert "no token between it and the next one" in answer.json()["error"]["message"]
    off = pair.pruned.ask(content, vtprune={"rate": 0})
    assert off["choices"][0]["message"] == pair.stock.ask(content)["choices"][0]["message"]


def test_a_video_file_has_one_budget_over_its_frames(pair: Pair) -> None:
    stock = pair.stock.ask(FILM)
    before = pair.pruned.metrics("vtprune_videos_total")
    answers, original = set(), 0
    for settings, budget in [
        ({}, lambda original: round(original / 2)),
        ({"method": "adafv"}, lambda original: round(original / 2)),
        ({"video_method": "vidcom2"}, lambda original: round(original / 2)),
        ({"video_method": "evs", "rate": 0, "video_rate": 0.9}, lambda all_: round(all_ / 10)),
        ({"video_method": "uniform", "tokens": 7}, lambda _: 7),
        ({"method": "visionzip", "tokens": 1}, lambda _: 1),
    ]:
        answer = pair.pruned.ask(FILM, vtprune=settings)
        counts = answer["usage"]["visual_tokens"]
        original = counts["original"]
        assert counts["kept"] == budget(original)
        assert counts["video"] == {"original": original, "kept": counts["kept"]}
        gone = stock["usage"]["prompt_tokens"] - answer["usage"]["prompt_tokens"]
        assert gone == original - counts["kept"]
        answers.add(answer["choices"][0]["message"]["content"])
    assert len(answers) > 3, "another choice is another answer"
    whole = pair.pruned.ask(FILM, vtprune={"video_rate": 0})
    assert whole["choices"][0]["message"] == stock["choices"][0]["message"]
    assert whole["usage"]["visual_tokens"]["video"] == {"original": original, "kept": original}
    after = pair.pruned.metrics("vtprune_videos_total")
    for method in ("none", "vidcom2", "evs"):
        name = f'vtprune_videos_total{{method="{method}"}}'
        assert after[name] - before.get(name, 0) == 1
    assert original > 8


@pytest.mark.parametrize("method", ["attention", "evs"])
def test_a_video_is_explained_frame_by_frame(pair: Pair, method: str) -> None:
    settings = {"method": "attention", "video_method": method, "tokens": 21}
    message = {"role": "user", "content": [*FILM, *_picture("tiny")]}
    body = {"messages": [message], "vtprune": settings}
    answer = pair.pruned.client.post("/vtprune/explain", json=body).json()
    (video,), (image,) = answer["videos"], answer["images"]
    counts = pair.pruned.ask(FILM, max_tokens=1, vtprune=settings)["usage"]["visual_tokens"]
    assert (video["original"], len(video["kept"])) == (counts["original"], counts["kept"])
    assert image["views"][0]["overlay"] and len(image["kept"]) <= 21
    size, frames = video["original"] // len(video["views"]), enumerate(video["views"])
    assert video["kept"] == [n * size + place for n, view in frames for place in view["kept"]]
    for number, view in enumerate(video["views"]):
        assert view["rows"] * view["columns"] == size and view["overlay"] is None
        share = frame_shares(len(video["views"]), 21)[number]
        order = sorted(range(size), key=lambda place: -view["importance"][place])
        assert method == "evs" or view["kept"] == sorted(order[:share])
    if method == "evs":  # all of the first frame comes before any of the others
        assert len(video["views"][0]["kept"]) == min(size, 21)
    cards = pair.pruned.client.get("/vtprune/methods").json()["video_methods"]
    assert {card["name"]: card["allowed"] for card in cards} == {"evs": True, "vidcom2": True}


def test_a_video_beside_an_image_is_pruned_with_it_or_left_whole(pair: Pair) -> None:
    content = [video_part(CLIP), text_part("Then this:"), *_picture("wide", LONG)]
    expected = pair.stock.ask(content)
    off = pair.pruned.ask(content, vtprune={"rate": 0})
    assert off["choices"][0]["message"] == expected["choices"][0]["message"]
    every = pair.pruned.text(content, vtprune={"rate": 1e-12})
    assert every == expected["choices"][0]["message"]["content"]
    compared = pair.pruned.text(content, vtprune={"rate": 1e-12, "video_method": "evs"})
    assert compared == every
    for settings in (
        {"rate": 0.5},
        {"rate": 0.5, "video_method": "vidcom2"},
        {"rate": 0.5, "video_rate": 0},
    ):
        half = pair.pruned.ask(content, vtprune=settings)["usage"]
        counts = half["visual_tokens"]
        gone = counts["original"] - counts["kept"]
        assert expected["usage"]["prompt_tokens"] - half["prompt_tokens"] == gone > 0
        of_video = counts["video"]["original"] - counts["video"]["kept"]
        assert (of_video > 0) == ("video_rate" not in settings)


def test_an_unknown_method_for_videos_is_refused(pair: Pair) -> None:
    answer = pair.pruned.post(FILM, vtprune={"video_method": "magic"})
    assert answer.status_code == 400
    sentence = "video_method is 'magic'; allowed here: evs, vidcom2, adafv"
    assert sentence in answer.json()["error"]["message"]
