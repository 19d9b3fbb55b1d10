"""Who sent a request: the holder of the API key that came with it.

Replaces: `AuthenticationMiddleware.__call__`.
Why: a name that one client gives an image must not refer to another client's image, and where
requests become the engine's input nothing tells who sent them.
Relies on: the middleware being in front of every route of a server with keys; each request running
in a task of its own, so that a context variable belongs to one request.
vLLM versions: 0.31 to 0.33.
Goes when: a request object identifies its sender.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from vllm_pruner.compat.patching import Patch, apply

__all__ = ["key_holder", "patch_key_holder"]

_HOLDER = ContextVar("vtprune_key_holder", default="")


def key_holder() -> str:
    """Return a digest of the current request's API key; empty on a server without keys."""
    return _HOLDER.get()


def patch_key_holder() -> None:
    """Note the key of every request; vLLM decides whether it is valid. Safe to call again.

    Raises:
        RuntimeError: this vLLM lacks the middleware.
    """
    from vllm.entrypoints.serve.middleware.authenticate import AuthenticationMiddleware

    apply(Patch(AuthenticationMiddleware, "__call__", _with_holder))


def _with_holder(answer: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    def call(self: Any, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        sent = [value for name, value in scope.get("headers", ()) if name == b"authorization"]
        _HOLDER.set(hashlib.blake2b(b"\n".join(sent), digest_size=16).hexdigest())
        return answer(self, scope, receive, send)

    return call
