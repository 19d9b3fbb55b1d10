"""A chat completion about images, answered from 64 of 576 visual tokens each."""

from __future__ import annotations

import json
from typing import Any

import pytest
from media import PHOTOS, encode, image_part, noise, photo_question, text_part
from PIL import Image
from vllm_server import Server

from vllm_pruner.settings.defaults import DEFAULT_METHOD

pytestmark = pytest.mark.server

TOKENS, KEPT = 576, 64


def _prompt_tokens(server: Server, content: Any) -> int:
    return int(server.ask(content, max_tokens=1)["usage"]["prompt_tokens"])


def test_start_says_in_one_line_what_will_happen(pruned: Server) -> None:
    lines = [line for line in pruned.log.splitlines() if f"vtprune: {DEFAULT_METHOD}" in line]
    assert len(lines) == 1
    kept = f"{DEFAULT_METHOD} keeps 64 of 576 visual tokens per image (rate 0.8889)"
    assert kept in lines[0]
    assert "LlavaForConditionalGeneration" in lines[0]
    assert "selection runs on torch references, because the device is cpu" in pruned.log


@pytest.mark.parametrize("images", [0, 1, 3])
def test_prompt_shrinks_by_the_removed_tokens_of_every_image(
    images: int, pruned: Server, stock: Server
) -> None:
    content = [part for index in range(images) for part in photo_question(index)]
    content.append(text_part("Compare them."))
    removed = _prompt_tokens(stock, content) - _prompt_tokens(pruned, content)
    assert removed == images * (TOKENS - KEPT)


def test_text_and_images_alternate_in_one_message(pruned: Server, stock: Server) -> None:
    a, b = photo_question(0)[0], photo_question(1)[0]
    content = [text_part("First:"), a, text_part("second:"), b, text_part("Same?")]
    assert _prompt_tokens(stock, content) - _prompt_tokens(pruned, content) == 2 * (TOKENS - KEPT)
    swapped = [text_part("First:"), b, text_part("second:"), a, text_part("Same?")]
    assert pruned.text(content) != pruned.text(swapped)


def test_the_same_image_twice_in_one_message(pruned: Server) -> None:
    part = photo_question(0)[0]
    once = _prompt_tokens(pruned, [part, text_part("What?")])
    twice = _prompt_tokens(pruned, [part, part, text_part("What?")])
    assert KEPT <= twice - once <= KEPT + 4  # the template's line break between them


def test_different_photographs_give_different_answers(pruned: Server) -> None:
    answers = {pruned.text(photo_question(index)) for index in range(len(PHOTOS))}
    assert len(answers) == len(PHOTOS)


def test_streaming_gives_the_same_answer(pruned: Server) -> None:
    whole = pruned.text(photo_question(0))
    response = pruned.post(photo_question(0), stream=True, stream_options={"include_usage": True})
    events = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    assert events.pop() == "[DONE]"
    chunks = [json.loads(event) for event in events]
    pieces = [c["delta"].get("content") or "" for chunk in chunks for c in chunk["choices"]]
    assert "".join(pieces) == whole
    assert chunks[-1]["usage"]["prompt_tokens"] == _prompt_tokens(pruned, photo_question(0))


def _exif_rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(noise(64, 48), "JPEG", exif=exif)


def _animated() -> bytes:
    frames = [noise(64, 48, "P", seed) for seed in range(3)]
    return encode(frames[0], "GIF", save_all=True, append_images=frames[1:])


FILES = {
    "1x1": encode(noise(1, 1)),
    "1x400": encode(noise(1, 400)),
    "37x501": encode(noise(37, 501)),
    "2000x3001": encode(noise(2000, 3001), "JPEG"),
    "grey": encode(noise(64, 48, "L")),
    "rgba": encode(noise(64, 48, "RGBA")),
    "palette": encode(noise(64, 48, "P")),
    "cmyk": encode(noise(64, 48, "CMYK"), "JPEG"),
    "webp": encode(noise(64, 48), "WEBP"),
    "animated": _animated(),
    "exif-rotated": _exif_rotated(),
}


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_every_kind_of_image_file_is_pruned(file: bytes, pruned: Server, stock: Server) -> None:
    content = [image_part(file), text_part("What is this?")]
    completion = pruned.ask(content)
    removed = _prompt_tokens(stock, content) - completion["usage"]["prompt_tokens"]
    assert removed == TOKENS - KEPT
    assert completion["choices"][0]["message"]["content"]
