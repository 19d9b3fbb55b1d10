"""Answer the same message under several settings, one after another."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import HTTPException
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

from vllm_pruner.settings.keys import KEY
from vtprune_server.protocol import Answer, CompareRequest, CompareResponse
from vtprune_server.surface import Surface

__all__ = ["compare"]


async def compare(surface: Surface, body: CompareRequest) -> CompareResponse:
    """Answer a message under each of the settings.

    One after another, so that they do not compete; and with fresh names for images, so that none
    profits from what an earlier one cached.

    Raises:
        HTTPException: the error of a chat completion; 404, if this server answers none.
    """
    if surface.chat is None:
        raise HTTPException(
            404, "this server answers no chat completions; allowed: /vtprune/explain"
        )
    answers = [await _answer(surface, body, settings) for settings in body.settings]
    return CompareResponse(answers=answers)


async def _answer(surface: Surface, body: CompareRequest, settings: dict[str, Any]) -> Answer:
    request = _request(surface, body, settings)
    start = time.perf_counter()
    events = await surface.chat.create_chat_completion(request)
    if not isinstance(events, AsyncGenerator):
        raise HTTPException(events.error.code, events.error.message)
    first: float | None = None
    text = ""
    usage: dict[str, Any] = {}
    async for chunk in _chunks(events):
        usage = chunk.get("usage") or usage
        piece = "".join(c["delta"].get("content") or "" for c in chunk["choices"])
        if piece and first is None:
            first = time.perf_counter() - start
        text += piece
    seconds = time.perf_counter() - start
    return Answer(
        settings=settings,
        text=text,
        usage=usage,
        seconds_to_first_token=seconds if first is None else first,
        seconds=seconds,
    )


def _request(
    surface: Surface, body: CompareRequest, settings: dict[str, Any]
) -> ChatCompletionRequest:
    """Return the message as a streamed request with these settings."""
    return ChatCompletionRequest.model_validate(
        {
            "messages": _with_fresh_images(surface, body.messages),
            "max_tokens": body.max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            KEY: settings,
        }
    )


async def _chunks(events: AsyncGenerator[str, None]) -> AsyncGenerator[dict[str, Any], None]:
    """Yield the chunks of a streamed chat completion.

    Raises:
        HTTPException: a chunk is an error.
    """
    async for event in events:
        data = event.removeprefix("data: ").strip()
        if data == "[DONE]":
            continue
        chunk = json.loads(data)
        if "error" in chunk:
            raise HTTPException(chunk["error"]["code"], chunk["error"]["message"])
        yield chunk


def _with_fresh_images(surface: Surface, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a copy in which every image has a name that no cache knows."""
    messages = copy.deepcopy(messages)
    for message in messages:
        content = message.get("content")
        for part in content if isinstance(content, list) else []:
            if isinstance(part, dict) and part.get("type") == "image_url":
                part["uuid"] = surface.image_info.fresh_name(part.get("uuid"))
    return messages
