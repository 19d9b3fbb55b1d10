"""Whose request it is: the holder of the key that came with it.

Replaces: `AuthenticationMiddleware.__call__`.
Why: what a client calls its images must not name another one's, and where requests become the
engine's input nothing says who sent them.
Relies on: the middleware being in front of every route of a server with keys; a task for each
request, so that a context variable is its own.
vLLM versions: 0.31 to 0.33.
Goes when: a request says who sent it.
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
    """Return the same text for requests with the same key; empty on a server without keys."""
    return _HOLDER.get()


def patch_key_holder() -> None:
    """Look at the key of every request. Whether it is one of the server's is vLLM's to say. Safe to
    call again.

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
