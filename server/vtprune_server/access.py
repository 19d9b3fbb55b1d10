"""Check API keys, since vLLM's `--api-key` guards only `/v1`, and the sizes of bodies."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException as StarletteHTTPException

from vtprune_server.not_json import fault_of_body
from vtprune_server.surface import absent

if TYPE_CHECKING:
    from argparse import Namespace

    from vllm.entrypoints.serve.middleware.authenticate import AuthenticationMiddleware

__all__ = ["MAX_BODY", "Access", "GuardedRoute"]

MAX_BODY: Final = 32 << 20
"""Most bytes of a request's body: enough for a photograph of 24 million bytes in base64."""


@dataclass(frozen=True, slots=True)
class Access:
    """Checks the key of a request as vLLM does."""

    _verifier: AuthenticationMiddleware | None

    @classmethod
    def of(cls, args: Namespace) -> Access:
        """Return the check for the keys that `vllm serve` was given, if any."""
        from vllm import envs
        from vllm.entrypoints.serve.middleware.authenticate import AuthenticationMiddleware

        keys = [key for key in (args.api_key or [envs.VLLM_API_KEY]) if key]

        async def nowhere(*_: object) -> None: ...

        return cls(AuthenticationMiddleware(nowhere, tokens=keys) if keys else None)

    def allows(self, request: Request) -> bool:
        """Whether the request carries a key, or needs none."""
        return self._verifier is None or self._verifier.verify_token(request.headers)


class GuardedRoute(APIRoute):
    """A route that checks a request before its body is read."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            _admit(request)
            try:
                return await handle(request)
            except RequestValidationError as error:
                raise fault_of_body(request, error) or error from None
            except StarletteHTTPException as error:
                # For a body that is not text; vLLM formats only FastAPI's own exceptions.
                raise HTTPException(error.status_code, error.detail) from error

        return guarded


def _admit(request: Request) -> None:
    """Refuse a request without a key, to a server that does not prune, or with too large a body.

    Raises:
        HTTPException: 401, 404, 411 or 413.
    """
    if not request.app.state.vtprune_access.allows(request):
        raise HTTPException(401, "Unauthorized")
    if request.app.state.vtprune is None:
        raise HTTPException(404, absent(request.app.state))
    if request.method == "POST":
        length = request.headers.get("content-length", "")
        if not length.isdecimal():
            raise HTTPException(411, "the request has no Content-Length")
        if int(length) > MAX_BODY:
            raise HTTPException(413, f"the body has {length} bytes; allowed: {MAX_BODY}")
