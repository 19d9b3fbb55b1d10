"""Ask an OpenAI-compatible server many questions concurrently, with greedy decoding."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from vtprune_evaluate.contender import Contender
from vtprune_evaluate.item import Item

__all__ = ["Answer", "Server", "ServerError", "ask_all", "served_model"]

_TRIES = 3


class ServerError(RuntimeError):
    """The server refused a request or could not be reached; the message says what it answered."""


@dataclass(frozen=True, slots=True)
class Server:
    """The server to ask, and how."""

    url: str
    """Without `/v1`."""
    model: str
    concurrency: int = 8
    key: str = ""
    """Sent as a bearer token if not empty."""
    timeout: float = 300.0
    """Seconds per request."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to an item."""

    text: str
    original: int | None
    """Visual tokens before pruning, if the server reports them."""
    kept: int | None
    """Visual tokens after pruning, if the server reports them."""


def _kind(file: bytes) -> str:
    return "image/png" if file.startswith(b"\x89PNG") else "image/jpeg"


def _body(server: Server, item: Item, contender: Contender, max_tokens: int) -> dict[str, Any]:
    file = item.load()
    url = f"data:{_kind(file)};base64,{b64encode(file).decode()}"
    return {
        "model": server.model,
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": url}},
                    {"type": "text", "text": item.prompt},
                ],
            }
        ],
        "max_tokens": item.max_tokens or max_tokens,
        "temperature": 0,
        **contender.body(),
    }


async def _post(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> Any:
    for attempt in range(_TRIES):
        try:
            async with session.post(url, json=body) as response:
                if response.status == 200:
                    return await response.json()
                text = f"{response.status} {(await response.text())[:500]}"
                if response.status < 500:
                    raise ServerError(f"{url} answered {text}")
        except (aiohttp.ClientConnectionError, TimeoutError) as error:
            text = repr(error)
        await asyncio.sleep(2**attempt)
    raise ServerError(f"{url} failed {_TRIES} times, last with {text}")


def _answer(completion: dict[str, Any]) -> Answer:
    counts = (completion.get("usage") or {}).get("visual_tokens") or {}
    text = completion["choices"][0]["message"]["content"] or ""
    return Answer(text, counts.get("original"), counts.get("kept"))


def served_model(server: Server) -> str:
    """Return the model that the server was started with, or its name if the server does not say."""
    return asyncio.run(_served_model(server))


async def _served_model(server: Server) -> str:
    url = f"{server.url.rstrip('/')}/v1/models"
    try:
        async with (
            aiohttp.ClientSession(headers=_headers(server)) as session,
            session.get(url) as response,
        ):
            models = (await response.json())["data"]
    except (aiohttp.ClientError, ValueError, KeyError, TypeError):
        return server.model
    roots = {each["id"]: each.get("root") for each in models}
    return str(roots.get(server.model) or server.model)


def _headers(server: Server) -> dict[str, str]:
    return {"Authorization": f"Bearer {server.key}"} if server.key else {}


async def ask_all(
    server: Server,
    work: Sequence[tuple[Item, Contender]],
    max_tokens: int,
    done: Callable[[Item, Contender, Answer], None],
) -> None:
    """Ask all questions in order, `concurrency` at a time; call `done` as each answer arrives.

    Raises:
        ServerError: a request was refused, or failed three times.
    """
    waiting = iter(work)
    headers = _headers(server)
    timeout = aiohttp.ClientTimeout(total=server.timeout)
    url = f"{server.url.rstrip('/')}/v1/chat/completions"
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:

        async def client() -> None:
            for item, contender in waiting:
                body = _body(server, item, contender, max_tokens)
                done(item, contender, _answer(await _post(session, url, body)))

        async with asyncio.TaskGroup() as group:
            for _ in range(server.concurrency):
                group.create_task(client())
