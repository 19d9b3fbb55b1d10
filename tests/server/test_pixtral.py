"""Mistral's own form over HTTP: its tokenizer renders the chat and writes the tokens of images."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from halves import assert_lies_on, explained
from media import encode, image_part, noise, text_part
from mistral_words import ids_of
from nightly import NIGHTLY
from PIL import Image, ImageOps
from vllm.tokenizers.mistral import MistralTokenizer
from vllm_process import MODELS
from vllm_server import Server
from vtprune_evaluate.pages import draw_page

pytestmark = pytest.mark.server

FORM = [
    *("--tokenizer-mode", "mistral", "--config-format", "mistral", "--load-format", "mistral"),
    *("--max-model-len", "700"),
]
WIDE = noise(448, 224)
"""Of 8 rows of 16 tokens, at its own size."""

ORIGINAL, BREAKS = 128, 7
IDS = {"return_token_ids": True, "max_tokens": 1}
ADAFV = {"method": "adafv", "tokens": 12}


@pytest.fixture(scope="module")
def native(start_shared: Callable[..., Server]) -> Server:
    return start_shared("pixtral", "--plugin", "vtprune", *FORM, model="demo-pixtral")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return MistralTokenizer.from_pretrained(str(MODELS / "demo-pixtral"))


def _part(picture: Image.Image) -> dict[str, Any]:
    return image_part(encode(picture), "image/png")


def _user(*parts: str | Image.Image) -> dict[str, Any]:
    content = [text_part(each) if isinstance(each, str) else _part(each) for each in parts]
    return {"role": "user", "content": content}


def _explained(server: Server, *messages: dict[str, Any], **settings: Any) -> list[Any]:
    body = {"messages": messages, "vtprune": settings, "overlay": True}
    answer = server.client.post("/vtprune/explain", json=body)
    assert answer.status_code == 200, answer.text
    images: list[Any] = answer.json()["images"]
    return images


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"rate": 0}, ORIGINAL),
        ({}, 64),
        ({"rate": 0.75}, 32),
        ({"tokens": 3}, 3),
        ({"tokens": 19, "method": "adafv"}, 19),
    ],
    ids=str,
)
def test_a_prompt_is_the_tokenizers_own_with_fewer_tokens_of_the_image(
    native: Server, tokenizer: Any, settings: dict[str, Any], kept: int
) -> None:
    content = _user("See", WIDE, "and say: what is it?")["content"]
    answer = native.ask(content, vtprune=settings, **IDS)
    whole = ids_of(tokenizer, "See", WIDE, "and say: what is it?")
    image, line_break, end = (
        tokenizer.get_vocab()[f"[IMG{each}]"] for each in ("", "_BREAK", "_END")
    )
    first, last = whole.index(image), whole.index(end)
    assert whole[first:last].count(line_break) == BREAKS
    short = whole[first:last] if kept == ORIGINAL else [image] * (kept + BREAKS)
    assert answer["prompt_token_ids"] == whole[:first] + short + whole[last:]
    assert answer["usage"]["visual_tokens"] == {"original": ORIGINAL, "kept": kept}
    body = {"images": [{"width": 448, "height": 224}], "vtprune": settings}
    told = native.client.post("/vtprune/estimate", json=body).json()
    assert (told["original"], told["kept"]) == (ORIGINAL, kept)
    counted = {"model": "demo", "messages": [{"role": "user", "content": content}]}
    counted["vtprune"] = settings
    tokens = native.client.post("/tokenize", json=counted).json()
    assert tokens["tokens"] == answer["prompt_token_ids"]


def test_a_prompt_that_fits_only_pruned_is_served(native: Server) -> None:
    content = _user(*[noise(448, 224, seed=seed) for seed in range(6)], "Compare.")["content"]
    usage = native.ask(content, max_tokens=1)["usage"]
    assert usage["visual_tokens"] == {"original": 6 * ORIGINAL, "kept": 3 * ORIGINAL}
    refused = native.post(content, vtprune={"rate": 0})
    assert refused.status_code == 400
    assert "of 6 images, for a model of 700 with room" in refused.json()["error"]["message"]


def test_a_picture_that_its_file_turns_is_the_upright_one(native: Server) -> None:
    """Mistral's tokenizer counts the tokens of the file, vLLM encodes the upright picture."""
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encode(noise(448, 140), "JPEG", exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(turned)))
    assert upright.size == (140, 448)
    for settings in ({}, {"rate": 0}):
        native.forget()
        body: Any = {"vtprune": settings, "return_token_ids": True}
        expected = native.ask([_part(upright), text_part("What?")], **body)
        native.forget()
        found = native.ask([image_part(turned), text_part("What?")], **body)
        assert found["choices"] == expected["choices"]
        assert found["prompt_token_ids"] == expected["prompt_token_ids"]


def test_the_question_is_the_rest_of_the_images_message(native: Server) -> None:
    """Not the system prompt, and not what is said later."""
    system = {"role": "system", "content": "You are kind."}
    later = [{"role": "assistant", "content": "A cat."}, _user("What colour is it?")]
    asked = [_user(WIDE, f"Where is the {word}?") for word in ("cat", "rocket", "grass")]
    kept = [_explained(native, each, **ADAFV)[0]["kept"] for each in asked]
    assert len({tuple(each) for each in kept}) == len(asked)
    for messages in ([system, asked[0]], [asked[0], *later], [system, asked[0], *later]):
        assert _explained(native, *messages, **ADAFV)[0]["kept"] == kept[0]
    first, second = _explained(native, _user("Where is the cat?", WIDE, WIDE), **ADAFV)
    assert first["kept"] == second["kept"] == kept[0]
    (silent,) = _explained(native, _user(WIDE), **ADAFV)
    assert silent["views"][0]["relevance"] is None
    assert silent["kept"] != kept[0]


def test_the_overlay_lies_on_the_picture(native: Server) -> None:
    """Light where a token is kept, and there red on the left and blue on the right."""
    image = explained(native, 448, 224)
    (view,) = image["views"]
    assert (view["rows"], view["columns"]) == (8, 16)
    assert_lies_on(view, np.arange(ORIGINAL) % 16 < 8)


def test_print_keeps_its_tokens_and_detail_moves_the_rate(native: Server) -> None:
    page = Image.fromarray(draw_page(7, 0).pixels)
    counts = native.ask([_part(page), text_part("What?")], max_tokens=1)["usage"]["visual_tokens"]
    assert counts["floor"] == "text"
    assert counts["kept"] > counts["original"] / 2
    kept = []
    for level in ("low", "auto", "high"):
        part = _part(WIDE)
        part["image_url"]["detail"] = level
        usage = native.ask([part, text_part("What?")], max_tokens=1, vtprune={"rate": 0.7})["usage"]
        kept.append(usage["visual_tokens"]["kept"])
    assert kept == sorted(set(kept))


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"vtprune": {"tokens": 257}}, "tokens is 257; allowed: 1 to 256"),
        ({"vtprune": {"rate": 1}}, "rate is 1"),
        ({"vtprune": {"method": "resize"}}, "max_image_size in tekken.json, or another method"),
        ({"truncate_prompt_tokens": 5}, "truncate_prompt_tokens"),
    ],
    ids=["tokens", "rate", "method", "truncated"],
)
def test_a_bad_request_is_answered_and_the_next_one_served(
    native: Server, body: dict[str, Any], sentence: str
) -> None:
    content = _user(WIDE, "What is it?")["content"]
    answer = native.post(content, **body)
    assert answer.status_code == 400
    assert sentence in answer.json()["error"]["message"]
    assert native.ask(content, max_tokens=1)


def test_a_name_needs_its_content(native: Server) -> None:
    named = {**_part(WIDE), "uuid": "wide"}
    assert native.ask([named, text_part("What?")], max_tokens=1)
    answer = native.post([{**named, "image_url": None}, text_part("What?")])
    assert answer.status_code == 400


@NIGHTLY
def test_rate_0_is_stock_to_the_byte_and_keeping_all_says_the_same(
    native: Server, start: Callable[..., Server]
) -> None:
    stock = start("pixtral-stock", *FORM, model="demo-pixtral", VLLM_PLUGINS="none")
    body = {"logprobs": True, "top_logprobs": 5, "return_token_ids": True}
    for parts in ([WIDE, "What?"], ["See", WIDE, "and", noise(100, 300), "!"], ["Nothing."]):
        content = _user(*parts)["content"]
        expected = stock.ask(content, **body)
        off = native.ask(content, vtprune={"rate": 0}, **body)
        for key in ("choices", "prompt_token_ids"):
            assert json.dumps(off[key]) == json.dumps(expected[key])
        every = native.text(content, vtprune={"rate": 1e-12})
        assert every == expected["choices"][0]["message"]["content"]
