"""Ask workers for faults of other packages' methods before an answer is sent.

A worker cannot fail one request alone (`worker.guard`). So the API server asks it when the first
token has arrived and nothing has been sent: by then the request's images have been encoded.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from vllm_pruner import compat
from vllm_pruner.plan import ASK_FAULTS, EXPECT_ASKING, FOREIGN
from vllm_pruner.prompt.identities import identities_in
from vllm_pruner.prompt.refusal import failure

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from vllm.v1.engine.async_llm import AsyncLLM

__all__ = ["checked"]

_told: WeakSet[AsyncLLM] = WeakSet()
"""Engines whose workers have been told that they will be asked."""


def checked(
    engine: AsyncLLM, prompt: Any, _params: Any, _id: str, outputs: AsyncGenerator[Any, None]
) -> AsyncGenerator[Any, None]:
    """Return a request's outputs, which raise a 500 if a method failed on one of its images."""
    names = [name for name in identities_in(prompt) if name.startswith(FOREIGN)]
    return _checked(engine, names, outputs) if names else outputs


async def _checked(
    engine: AsyncLLM, names: list[str], outputs: AsyncGenerator[Any, None]
) -> AsyncGenerator[Any, None]:
    if engine not in _told:
        await compat.ask_workers(engine, EXPECT_ASKING)
        _told.add(engine)
    is_first = True
    async with aclosing(outputs):
        async for output in outputs:
            if is_first:
                answers = await compat.ask_workers(engine, ASK_FAULTS, names)
                for method, said in (found for answer in answers for found in answer):
                    raise failure(method, said)
                is_first = False
            yield output
