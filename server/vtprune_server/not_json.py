"""A body that is not JSON is said to be that, on vtprune's routes and on vLLM's beside them.

vLLM says "1 validation error" with what pydantic calls it, and of an empty body that a field is
missing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError

from vllm_pruner.settings.errors import shown
from vtprune_server.surface import prunes

if TYPE_CHECKING:
    _Handler = Callable[[Request], Awaitable[Response]]

__all__ = ["fault_of_body", "saying_not_json"]


def saying_not_json(path: str, handle: _Handler) -> _Handler:
    """Return the handler of a route, which says so if it is one of `/v1`; on a server that does not
    prune nothing changes."""
    if not path.startswith("/v1/"):
        return handle

    async def handled(request: Request) -> Response:
        try:
            return await handle(request)
        except RequestValidationError as error:
            told = fault_of_body(request, error) if prunes(request.app.state) else None
            raise told or error from None

    return handled


def fault_of_body(request: Request, error: RequestValidationError) -> HTTPException | None:
    """Return the error for a body that is empty or not JSON; None if it is JSON."""
    kind = request.headers.get("content-type", "none")
    if kind.lower().partition(";")[0].strip() != "application/json":
        sentence = f"Content-Type is {shown(kind)!r}; allowed: application/json"
        return HTTPException(400, sentence)
    for found in error.errors():
        if found["type"] == "json_invalid":
            where = f" from character {found['loc'][-1]} on" if len(found["loc"]) > 1 else ""
            return HTTPException(400, f"the body is not JSON{where}; allowed: a JSON object")
        if found["type"] == "missing" and len(found["loc"]) == 1:
            return HTTPException(400, "the body is empty; allowed: a JSON object")
    return None
