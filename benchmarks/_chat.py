"""Send streaming chat requests as a client would, and time them."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import random
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from PIL import Image

PHOTOS = Path(__file__).parents[1] / "assets" / "photos"
QUESTION = "What is in this picture, and what stands behind it?"
SPINNING_S = 1.5
"""A vLLM worker spins for a second after its last step (`SpinCondition.busy_loop_s`). On a CPU, the
workers of all servers are bound to the same cores, so another server runs at half its speed in that
second."""


@dataclass(frozen=True)
class Timing:
    """One answered request."""

    first_token: float
    """Seconds from sending to the first streamed token."""

    total: float
    prompt_tokens: int


def photographs(width: int = 448, height: int = 336, seed: int = 0) -> Iterator[str]:
    """Yield endless distinct photographs as data URLs: random views of the bundled ones."""
    sources = [Image.open(path).convert("RGB") for path in sorted(PHOTOS.glob("*.jpg"))]
    choose = random.Random(seed)
    for source in itertools.cycle(sources):
        scale = choose.uniform(0.6, 1.0)
        view_width, view_height = int(source.width * scale), int(source.height * scale)
        left = choose.randrange(source.width - view_width + 1)
        top = choose.randrange(source.height - view_height + 1)
        view = source.crop((left, top, left + view_width, top + view_height))
        file = io.BytesIO()
        view.resize((width, height)).save(file, "JPEG", quality=90)
        yield "data:image/jpeg;base64," + b64encode(file.getvalue()).decode()


def image_body(url: str, output_tokens: int, question: str = QUESTION) -> dict[str, Any]:
    """Return a request with a question about one photograph."""
    image = {"type": "image_url", "image_url": {"url": url}}
    return _body([image, {"type": "text", "text": question}], output_tokens)


def text_body(words: int, output_tokens: int, choose: random.Random) -> dict[str, Any]:
    """Return a request without image, of `words` random digits, so that nothing of it is cached."""
    return _body(" ".join(str(choose.randrange(10)) for _ in range(words)), output_tokens)


def _body(content: Any, output_tokens: int) -> dict[str, Any]:
    return {
        "model": "demo",
        "messages": [{"role": "user", "content": content}],
        "max_tokens": output_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def _send(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> Timing:
    sent, first, usage = time.perf_counter(), 0.0, {}
    async with session.post(f"{url}/v1/chat/completions", json=body) as response:
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {await response.text()}")
        async for line in response.content:
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line.removeprefix(b"data: "))
            usage = chunk.get("usage") or usage
            if not first and chunk["choices"] and chunk["choices"][0]["delta"].get("content"):
                first = time.perf_counter()
    if not first or usage["completion_tokens"] != body["max_tokens"]:
        raise RuntimeError(f"an incomplete answer: {usage}")
    return Timing(first - sent, time.perf_counter() - sent, usage["prompt_tokens"])


async def _closed_load(
    url: str, bodies: Sequence[dict[str, Any]], concurrency: int
) -> tuple[list[Timing], float]:
    waiting = iter(bodies)
    timings: list[Timing] = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=600)) as session:

        async def client() -> None:
            for body in waiting:
                timings.append(await _send(session, url, body))

        start = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(concurrency)))
        return timings, time.perf_counter() - start


def closed_load(
    url: str, bodies: Sequence[dict[str, Any]], concurrency: int
) -> tuple[list[Timing], float]:
    """Send all bodies with `concurrency` clients, each of which waits for its answers.

    It first waits until a server that was asked just before has stopped spinning.

    Returns:
        The timings, and the total seconds.
    """
    time.sleep(SPINNING_S)
    return asyncio.run(_closed_load(url, bodies, concurrency))
