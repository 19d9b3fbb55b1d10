"""Bodies of bad requests, as bytes, reproducible from a seed."""

from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Callable
from functools import cache
from typing import Any

from PIL import Image

__all__ = ["BAD", "hang_up_body"]

Body = Callable[[random.Random], bytes]


def _jpeg(choose: random.Random, width: int = 64, height: int = 48) -> bytes:
    colour = tuple(choose.randrange(256) for _ in range(3))
    file = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(file, "JPEG")
    return file.getvalue()


@cache
def _bomb() -> bytes:
    """Return a PNG of a few kilobytes that would be 1.2 GB of pixels."""
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG")
    return file.getvalue()


def _url(file: bytes, mime: str = "image/jpeg") -> str:
    return f"data:{mime};base64,{base64.b64encode(file).decode()}"


def _chat(content: Any, **more: Any) -> bytes:
    messages = [{"role": "user", "content": content}]
    return json.dumps({"model": "demo", "messages": messages, "max_tokens": 4, **more}).encode()


def _picture(url: str, **more: Any) -> bytes:
    image = {"type": "image_url", "image_url": {"url": url}}
    return _chat([image, {"type": "text", "text": "What is this?"}], **more)


def _settings(choose: random.Random) -> bytes:
    values = (-1, 0, 1, 1.5, 1e308, float("nan"), float("inf"), 10**40, "", "x", None, True, [], {})
    key = choose.choice(("rate", "tokens", "method", "options", "limits", "detail", "\x00"))
    value = choose.choice((*values, {"a": {"a": {"a": [None] * 100}}}, "y" * 10_000))
    body = choose.choice(({key: value}, {key: value, "rate": 0.5, "tokens": 3}, value, [value]))
    return _picture(_url(_jpeg(choose)), vtprune=body)


def _unsound_chat(choose: random.Random) -> bytes:
    """Return a request with one of vLLM's own fields out of range or of the wrong type."""
    fields: list[dict[str, Any]] = [
        {"max_tokens": -1},
        {"max_tokens": 10**9},
        {"temperature": -3},
        {"temperature": "hot"},
        {"top_p": 7},
        {"n": 0},
        {"messages": 7},
        {"messages": []},
        {"model": "another"},
        {"stream": "maybe"},
        {"mm_processor_kwargs": {"vtprune": {"rate": 0.5}}},
        {"mm_processor_kwargs": {"do_resize": False}},
    ]
    return _picture(_url(_jpeg(choose)), **choose.choice(fields))


BAD: dict[str, Body] = {
    "truncated jpeg": lambda choose: _picture(_url(_jpeg(choose)[: choose.randrange(1, 600)])),
    "damaged jpeg": lambda choose: _picture(_url(_damaged(choose))),
    "random bytes as png": lambda choose: _picture(_url(choose.randbytes(5_000), "image/png")),
    "png head and noise": lambda choose: _picture(
        _url(b"\x89PNG\r\n\x1a\n" + choose.randbytes(999))
    ),
    "empty image": lambda choose: _picture(_url(b"")),
    "no base64": lambda choose: _picture("data:image/png;base64,@@@ not base64 @@@"),
    "no url": lambda choose: _picture("a picture of a cat"),
    "file url": lambda choose: _picture("file:///etc/hostname"),
    "one pixel": lambda choose: _picture(_url(_jpeg(choose, 1, 1))),
    "long and thin": lambda choose: _picture(_url(_jpeg(choose, 4000, 1))),
    "bomb": lambda choose: _picture(_url(_bomb(), "image/png")),
    "image without url": lambda choose: _chat([{"type": "image_url"}]),
    "unknown part": lambda choose: _chat([{"type": "hologram", "hologram": {}}]),
    "too many images": lambda choose: _chat(
        [{"type": "image_url", "image_url": {"url": _url(_jpeg(choose))}}] * 200
    ),
    "settings": _settings,
    "unsound chat": _unsound_chat,
    "no json": lambda choose: choose.randbytes(2_000),
    "deep json": lambda choose: b"[" * 100_000,
    "empty body": lambda choose: b"",
    "long prompt": lambda choose: _chat("word " * 400_000),
    "large body": lambda choose: _picture(_url(choose.randbytes(24_000_000))),
}
"""By name; a given random generator determines the body."""


def _damaged(choose: random.Random) -> bytes:
    file = bytearray(_jpeg(choose))
    for _ in range(20):
        file[choose.randrange(len(file))] = choose.randrange(256)
    return bytes(file)


def hang_up_body(choose: random.Random) -> bytes:
    """Return a valid streaming request with a long answer, for a client that will not read it."""
    return _picture(_url(_jpeg(choose)), stream=True, max_tokens=500, ignore_eos=True)
