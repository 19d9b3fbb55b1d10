"""The routes: each reads a request, makes one call, and returns its result."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import HTMLResponse, Response
from vllm.entrypoints.serve.engine.protocol import ErrorResponse

from vtprune_server.access import MAX_BODY, GuardedRoute
from vtprune_server.compare import compare
from vtprune_server.describe import describe_config, describe_methods
from vtprune_server.estimate import estimate
from vtprune_server.explain import explain
from vtprune_server.protocol import (
    CompareRequest,
    CompareResponse,
    ConfigResponse,
    EstimateRequest,
    EstimateResponse,
    ExplainRequest,
    ExplainResponse,
    MethodsResponse,
)
from vtprune_server.surface import Surface, absent

__all__ = ["router"]

_PLAYGROUND = files("vtprune_server") / "playground"

_SAFE = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self'; "
    "style-src 'unsafe-inline'; img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
"""The playground loads nothing from elsewhere, runs only its own scripts, and cannot be framed."""

router = APIRouter(prefix="/vtprune", tags=["vtprune"])


def _refusals(when: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    """Return the descriptions of errors by status, in OpenAI's format, for the OpenAPI schema."""
    return {status: {"model": ErrorResponse, "description": text} for status, text in when.items()}


_HEAD = {
    401: "The server has an API key, and the request does not",
    404: "The server does not prune",
}
_BODY = {
    400: "A body or settings that a chat completion would refuse, too",
    411: "A body without Content-Length",
    413: f"A body of more than {MAX_BODY} bytes",
}
_BUSY = {429: "Too many such requests are running or waiting"}
_guarded = APIRouter(route_class=GuardedRoute, responses=_refusals(_HEAD))


def _surface(request: Request) -> Surface:
    return cast(Surface, request.app.state.vtprune)


At = Annotated[Surface, Depends(_surface)]


@_guarded.get("/config")
async def get_config(surface: At) -> ConfigResponse:
    """Effective settings, limits, versions, and what the selection runs on."""
    return await describe_config(surface)


@_guarded.get("/methods")
async def get_methods(surface: At) -> MethodsResponse:
    """The methods, with the JSON schema of their options."""
    return describe_methods(surface)


@_guarded.post("/estimate", responses=_refusals(_BODY | _BUSY))
async def post_estimate(request: Request, body: EstimateRequest, surface: At) -> EstimateResponse:
    """Visual tokens of images or image sizes, before and after pruning; the tower does not run."""
    work = estimate(surface, body)
    if all(image.url is None for image in body.images):
        return await work
    return await surface.estimating.take(request, work)


@_guarded.post("/explain", responses=_refusals(_BODY | _BUSY))
async def post_explain(request: Request, body: ExplainRequest, surface: At) -> ExplainResponse:
    """Which tokens of a message's images are kept, and why; generates nothing."""
    return await surface.explaining.take(request, explain(surface, body))


@_guarded.post("/compare", responses=_refusals(_BODY | _BUSY))
async def post_compare(request: Request, body: CompareRequest, surface: At) -> CompareResponse:
    """The same message answered under several settings: answers, token counts, latencies."""
    return await surface.comparing.take(request, compare(surface, body))


router.include_router(_guarded)


@router.get("/", include_in_schema=False)
async def playground(request: Request) -> HTMLResponse:
    """The playground; it asks for an API key itself if the server has one."""
    if request.app.state.vtprune is None:
        raise HTTPException(404, absent(request.app.state))
    return HTMLResponse((_PLAYGROUND / "index.html").read_text(), headers=_SAFE)


@router.get("/{name}.js", include_in_schema=False)
async def script(name: str) -> Response:
    """One of the playground's scripts."""
    return _file(_PLAYGROUND, f"{name}.js", "text/javascript")


@router.get("/photos/{name}", include_in_schema=False)
async def photo(name: str) -> Response:
    """One of the playground's pictures."""
    kind = "image/png" if name.endswith(".png") else "image/jpeg"
    return _file(_PLAYGROUND / "photos", name, kind)


def _file(folder: Traversable, name: str, media_type: str) -> Response:
    """Return a file of a folder, by its name.

    Raises:
        HTTPException: 404, if there is no such file.
    """
    found = {file.name: file for file in folder.iterdir()}.get(name)
    if found is None:
        raise HTTPException(404, f"no file {name!r}")
    return Response(found.read_bytes(), media_type=media_type)
