"""Token counts in headers of an answer: before a stream's first byte, and for proxies that do not
read bodies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vllm_pruner.settings.keys import TOLD

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["ReportHeader"]

_NAMES = {
    "original": b"x-vtprune-original-tokens",
    "kept": b"x-vtprune-kept-tokens",
    "floor": b"x-vtprune-floor",
    "rate": b"x-vtprune-rate",
}
"""By key of `usage.visual_tokens`; its counts of videos alone are only in the body."""


class ReportHeader:
    """ASGI middleware. An answer without counts gets no header."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        told: dict[str, Any] = {}
        scope[TOLD] = told  # copies of the scope share this dict

        async def send_with_counts(message: Message) -> None:
            if told and message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_headers(told)]
            await send(message)

        await self._app(scope, receive, send_with_counts)


def _headers(told: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    return [(name, str(told[key]).encode()) for key, name in _NAMES.items() if key in told]
