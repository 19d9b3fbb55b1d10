"""LLaVA-NeXT over HTTP: a base crop and two to four others, padding, newlines; any aspect ratio."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from media import PHOTOS, encode, image_part, noise, photo_question, text_part
from test_refusals import PRUNE, refusal
from vllm_process import MODELS
from vllm_server import Server

from vllm_pruner.settings.defaults import DEFAULT_METHOD

pytestmark = pytest.mark.server

# Width and height of a picture, and its tokens: 64 of the base crop, then what is not padding of a
# grid of crops of 8 x 8, with a newline after each row.
PICTURES = {
    "square": ((224, 224), 64 + 16 * 16 + 16),
    "wide": ((224, 112), 64 + 8 * 16 + 8),
    "tall": ((112, 224), 64 + 16 * 8 + 16),
    "3:1": ((300, 100), 64 + 8 * 24 + 8),
    "1:3": ((100, 300), 64 + 24 * 8 + 24),
    "4:3": ((640, 480), 64 + 12 * 16 + 12),
    "no-column-is-left": ((1, 400), 64 + 0 + 8),
    "no-row-is-left": ((400, 1), 64),
}
LONG = "Say exactly what stands where, beginning on the left and going slowly to the right. " * 5
ADAFV = {"vtprune": {"method": "adafv"}}


def _picture(name: str, question: str = "What is this?") -> list[dict[str, Any]]:
    (width, height), _ = PICTURES[name]
    return [image_part(encode(noise(width, height)), "image/png"), text_part(question)]


CONTENTS: list[Any] = [
    *(photo_question(index, LONG) for index in range(len(PHOTOS))),
    *(_picture(name, LONG) for name in PICTURES),
    [*_picture("tall", "First."), *photo_question(0, "Second."), *_picture("wide", LONG)],
    "Say something about nothing.",
]


@pytest.fixture(scope="module")
def next_pruned(start_shared: Callable[..., Server]) -> Server:
    """vtprune with its defaults."""
    return start_shared("next", "--plugin", "vtprune", model="demo-next")


@pytest.fixture(scope="module")
def next_stock(start_shared: Callable[..., Server]) -> Server:
    """vLLM that does not load vtprune at all."""
    return start_shared("next-stock", model="demo-next", VLLM_PLUGINS="none")


def _fresh(server: Server, content: Any, **body: Any) -> str:
    server.forget()
    return server.text(content, **body)


@pytest.fixture(scope="module")
def alone(next_pruned: Server) -> dict[str, list[str]]:
    """Each request on an idle server with empty caches, by method."""
    return {
        DEFAULT_METHOD: [_fresh(next_pruned, content) for content in CONTENTS],
        "adafv": [_fresh(next_pruned, content, **ADAFV) for content in CONTENTS],
    }


@pytest.mark.parametrize("picture", PICTURES)
def test_the_budget_is_of_the_whole_image(
    picture: str, next_pruned: Server, next_stock: Server
) -> None:
    original = PICTURES[picture][1]
    unpruned = next_stock.ask(_picture(picture), max_tokens=1)["usage"]["prompt_tokens"]
    budgets = [
        ({}, round(original / 9)),
        ({"rate": 0.5}, round(original / 2)),
        ({"tokens": 64}, min(64, original)),
        ({"tokens": 1}, 1),
        ({"tokens": 30, "method": "adafv"}, 30),
        ({"tokens": 31, "crop_budget": "per_crop"}, 31),
    ]
    for settings, kept in budgets:
        usage = next_pruned.ask(_picture(picture), max_tokens=1, vtprune=settings)["usage"]
        assert usage["visual_tokens"] == {"original": original, "kept": kept}
        assert unpruned - usage["prompt_tokens"] == original - kept


def test_rate_0_is_stock_to_the_byte_and_keeping_all_says_the_same(
    next_pruned: Server, next_stock: Server
) -> None:
    """Keeping all takes the pruned path: crops, order and newlines have to be vLLM's own."""
    body = {"logprobs": True, "top_logprobs": 5, "return_token_ids": True}
    for content in CONTENTS:
        next_stock.forget()
        next_pruned.forget()
        expected = next_stock.ask(content, **body)["choices"]
        off = next_pruned.ask(content, vtprune={"rate": 0}, **body)["choices"]
        assert json.dumps(off) == json.dumps(expected)
        every = next_pruned.text(content, vtprune={"rate": 1e-12})
        assert every == expected[0]["message"]["content"]


@pytest.mark.parametrize("method", [DEFAULT_METHOD, "adafv"])
def test_the_same_answer_at_once_and_on_every_hit(
    method: str, next_pruned: Server, alone: dict[str, list[str]]
) -> None:
    body = {"vtprune": {"method": method}}
    next_pruned.forget()
    assert next_pruned.texts_at_once(CONTENTS, **body) == alone[method]
    before = next_pruned.metric("vllm:prefix_cache_hits_total")
    assert [next_pruned.text(content, **body) for content in CONTENTS] == alone[method]
    assert next_pruned.metric("vllm:prefix_cache_hits_total") > before


def test_the_same_answer_in_chunks_without_prefix_cache_and_with_few_features_kept(
    start: Callable[..., Server], alone: dict[str, list[str]]
) -> None:
    """67 tokens a step cut images anywhere. 1 MiB of features holds 31 crops, fewer than the
    pictures have. vLLM's profile encodes one image of five crops there, while nine pruned ones fit
    into a step of the encoder."""
    server = start(
        "next-chunked",
        *["--plugin", "vtprune", "--no-enable-prefix-caching", "--prune-feature-cache-mb", "1"],
        *["--max-num-batched-tokens", "67", "--max-num-seqs", "8"],
        model="demo-next",
    )
    server.rpc("start_probe")
    for method, expected in alone.items():
        body = {"vtprune": {"method": method}}
        assert [server.text(content, **body) for content in CONTENTS] == expected
        assert server.texts_at_once(CONTENTS, **body) == expected
    (record,) = server.rpc("read_probe")
    assert max(record["images"]) <= 5


def test_settings_and_sizes_are_mixed_in_one_batch(next_pruned: Server) -> None:
    settings: list[dict[str, Any]] = [
        {"tokens": 16},
        {"crop_budget": "per_crop"},
        {"method": "uniform"},
        {"rate": 0},
    ]
    requests = [(content, setting) for content in CONTENTS[:-1] for setting in settings]

    def answer(request: tuple[Any, dict[str, Any]]) -> str:
        content, setting = request
        return next_pruned.text(content, vtprune=setting)

    expected = []
    for request in requests:
        next_pruned.forget()
        expected.append(answer(request))
    next_pruned.forget()
    with ThreadPoolExecutor(len(requests)) as pool:
        assert list(pool.map(answer, requests)) == expected


def test_questions_about_one_image_share_the_tower_and_nothing_else(next_pruned: Server) -> None:
    contents = [photo_question(1, f"{LONG} {word}?") for word in ("Whiskers", "Rocket")]
    expected = [_fresh(next_pruned, content, **ADAFV) for content in contents]
    next_pruned.forget()
    next_pruned.rpc("start_probe")
    for _ in range(2):
        assert [next_pruned.text(content, **ADAFV) for content in contents] == expected
    (record,) = next_pruned.rpc("read_probe")
    assert len(record["images"]) == 1
    assert len(record["kept"]) == 2
    assert record["kept"][0] != record["kept"][1]


def test_two_ranks_keep_the_same_tokens(start: Callable[..., Server]) -> None:
    server = start(
        "next-tp2",
        *["--plugin", "vtprune", "--tensor-parallel-size", "2"],
        model="demo-next",
        VLLM_CPU_OMP_THREADS_BIND="0|1",
    )
    server.rpc("start_probe")
    for content in CONTENTS[-5:-1]:
        server.text(content)
        server.text(content, **ADAFV)
    first, second = server.rpc("read_probe")
    assert first["kept"] == second["kept"]
    assert len(first["kept"]) >= 10


def test_tokens_are_bounded_by_the_largest_image(next_pruned: Server) -> None:
    error = next_pruned.post(_picture("wide"), vtprune={"tokens": 337}).json()["error"]
    assert error["code"] == 400
    assert "tokens is 337; allowed: 1 to 336" in error["message"]


def test_methods_that_this_model_refuses_are_marked(next_pruned: Server) -> None:
    found = next_pruned.client.get("/vtprune/methods").json()["methods"]
    cards = {card["name"]: card for card in found}
    assert cards[DEFAULT_METHOD]["allowed"] and not cards["visionzip"]["allowed"]
    assert "several crops" in cards["visionzip"]["refused"]
    for name, card in cards.items():
        body = {"images": [{"width": 300, "height": 200}], "vtprune": {"method": name}}
        response = next_pruned.client.post("/vtprune/estimate", json=body)
        assert response.status_code == (200 if card["allowed"] else 400)


def test_another_merging_of_crops_is_refused_at_start(tmp_path: Path) -> None:
    config = json.loads((MODELS / "demo-next" / "config.json").read_text())
    model = tmp_path / "flat"
    model.mkdir()
    for file in (MODELS / "demo-next").iterdir():
        (model / file.name).symlink_to(file)
    (model / "config.json").unlink()
    (model / "config.json").write_text(json.dumps({**config, "mm_patch_merge_type": "flat"}))
    assert refusal(str(model), PRUNE) == (
        "vtprune: mm_patch_merge_type is 'flat'; allowed: 'spatial_unpad', as vLLM merges"
    )


@pytest.mark.parametrize("name", PICTURES)
def test_explain_shows_base_crop_and_raster(name: str, next_pruned: Server) -> None:
    body = {"messages": [{"role": "user", "content": _picture(name)}], "vtprune": {"rate": 0.75}}
    response = next_pruned.client.post("/vtprune/explain", json=body)
    assert response.status_code == 200, response.text
    (found,) = response.json()["images"]
    usage = next_pruned.ask(_picture(name), vtprune={"rate": 0.75})["usage"]
    assert usage["visual_tokens"] == {
        "original": found["original"],
        "kept": len(found["kept"]),
    }
    base, *rasters = found["views"]
    assert (base["rows"], base["columns"]) == (8, 8)
    kept = len(base["kept"])
    for raster in rasters:
        rows = {patch // raster["columns"] for patch in raster["kept"]}
        kept += len(raster["kept"]) + len(rows)  # a newline for each of them
    assert kept == len(found["kept"]) or name == "no-column-is-left"  # which has only newlines
    for view in found["views"]:
        assert (view["overlay"] is None) == (view["columns"] * view["rows"] == 0)
