"""Settings in a body of a route that reads none are a 400, as a misspelt key is on the others.

vLLM has routes whose prompts are made elsewhere or have no images, and each release adds some; they
accept unknown keys, so a request for pruning would be answered as if nothing had been asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from vllm.exceptions import VLLMValidationError

from vllm_pruner.settings.keys import KEY
from vllm_pruner.settings.misplaced import CHATS, misplaced_in
from vtprune_server.surface import prunes

if TYPE_CHECKING:
    from fastapi import Request, Response

    _Handler = Callable[[Request], Awaitable[Response]]

__all__ = ["refusing"]

_READ = {
    *("/v1/chat/completions", "/v1/chat/completions/batch", "/v1/chat/completions/render"),
    *("/v1/responses", "/v1/responses/render", "/v1/messages", "/v1/messages/count_tokens"),
    *("/invocations", "/v1/completions"),
    *("/v1/embeddings", "/pooling", "/classify"),
    *("/score", "/v1/score", "/rerank", "/v1/rerank", "/v2/rerank"),
}
"""Where `vllm_pruner` itself reads the settings, or refuses them."""

_TOKENIZE = "/tokenize"
"""Reads those of a chat, and has prompts too, which have no images."""


def refusing(path: str, handle: _Handler) -> _Handler:
    """Return the handler of a route of vLLM's, which refuses settings if it reads none; on a server
    that does not prune nothing changes."""
    if path in _READ or path.startswith("/vtprune/"):
        return handle

    async def handled(request: Request) -> Response:
        if prunes(request.app.state):
            body = await _body(request)
            if isinstance(body, dict) and (found := _fault(path, body)):
                raise VLLMValidationError(found, parameter=KEY)
        return await handle(request)

    return handled


def _fault(path: str, body: dict[str, Any]) -> str:
    if path == _TOKENIZE and "messages" in body:
        return ""
    if body.get(KEY) is not None:
        whom = f"a prompt of {path}" if path == _TOKENIZE else path
        return f"{KEY}: settings are given to {whom}, which reads none; {CHATS}"
    return misplaced_in(body)


async def _body(request: Request) -> Any:
    """Return the JSON of a body, which the request keeps for vLLM; None if it is none."""
    if not request.headers.get("content-type", "").lower().startswith("application/json"):
        return None
    try:
        return await request.json()
    except ValueError:
        return None
