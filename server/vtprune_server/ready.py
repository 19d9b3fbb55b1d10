"""The last line of a start: where the playground is, what an image keeps, how to turn it off."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from vllm_pruner.settings.floor import MORE
from vllm_pruner.settings.server import ServerConfig

if TYPE_CHECKING:
    from argparse import Namespace

    from starlette.datastructures import State

__all__ = ["sentence", "tell_when_ready"]

logger = logging.getLogger("vllm.vtprune")

_EVERYWHERE = (None, "", "0.0.0.0", "::")
_POLL_SECONDS = 0.05


async def tell_when_ready(state: State, said: str) -> None:
    """Log a sentence once the server accepts requests, after all other lines of its start.

    Args:
        state: vLLM's state, which has uvicorn's server as soon as there is one.
        said: the sentence.
    """
    while not getattr(getattr(state, "server", None), "started", False):
        await asyncio.sleep(_POLL_SECONDS)
    logger.info("%s", said)


def sentence(config: ServerConfig, tokens: int, args: Namespace) -> str:
    """Return the line.

    Args:
        config: the operator's settings.
        tokens: visual tokens of the largest image, unpruned.
        args: the arguments of `vllm serve`.
    """
    return f"vtprune: {_playground(args)}; {_kept(config, tokens)}; {_ended(config)}"


def _playground(args: Namespace) -> str:
    path = f"{(args.root_path or '').rstrip('/')}/vtprune/"
    if args.uds:
        return f"playground at {path} of {args.uds}"
    host = "localhost" if args.host in _EVERYWHERE else args.host
    host = f"[{host}]" if ":" in host else host
    scheme = "https" if args.ssl_keyfile and args.ssl_certfile else "http"
    return f"playground at {scheme}://{host}:{args.port}{path}"


def _kept(config: ServerConfig, tokens: int) -> str:
    if config.off:
        return "images are kept whole unless a request asks for less"
    if config.request_tokens is not None:
        return f"{config.method} keeps {config.request_tokens} visual tokens of a request's images"
    kept = config.keep_count(tokens)
    return (
        f"{config.method} keeps {kept} of an image's {tokens} visual tokens"
        f"{MORE.get(config.floor, '')}"
    )


def _ended(config: ServerConfig) -> str:
    for_all = "for all without --plugin vtprune"
    if config.off or config.limits.min_rate > 0:
        return f"off {for_all}"
    return f'off for a request with "vtprune": {{"rate": 0}}, {for_all}'
