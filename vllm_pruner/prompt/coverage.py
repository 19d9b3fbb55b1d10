"""Ask workers how well the kept tokens of a request's images stand for the dropped ones.

Only for requests that ask for `confidence`: each costs two calls to the workers, which run between
two steps of the engine (`worker.coverage`). The first names the request's images before the request
begins, the second asks when its first token is there; by then its images have been encoded.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from vllm_pruner import compat
from vllm_pruner.plan import ASK_COVERAGE, WATCH
from vllm_pruner.prompt.first_token import FirstToken, watching
from vllm_pruner.prompt.identities import identities_in

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from vllm.v1.engine.async_llm import AsyncLLM

__all__ = ["asked", "least"]


def asked(
    engine: AsyncLLM, prompt: Any, _params: Any, _id: str, outputs: AsyncGenerator[Any, None]
) -> AsyncGenerator[Any, None]:
    """Return a request's outputs, at the first of which its coverage is known, if it asks."""
    first, names = watching(), identities_in(prompt)
    if first is None or not (first.asks_coverage and names and compat.asks_all_engines(engine)):
        return outputs
    return _asked(engine, names, first, outputs)


async def _asked(
    engine: AsyncLLM, names: list[str], first: FirstToken, outputs: AsyncGenerator[Any, None]
) -> AsyncGenerator[Any, None]:
    await compat.ask_workers(engine, WATCH, names)
    is_first = True
    async with aclosing(outputs):
        async for output in outputs:
            if is_first:
                first.coverage = least(await compat.ask_workers(engine, ASK_COVERAGE, names))
                is_first = False
            yield output


def least(answers: Iterable[Iterable[float | None]]) -> float | None:
    """Return the coverage of the image that is covered least, of those that a worker knows of; None
    if none does."""
    known = [each for answer in answers for each in answer if each is not None]
    return round(min(known), 4) if known else None
