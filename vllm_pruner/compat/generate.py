"""Intercept an engine's outputs for a request before vLLM makes an answer from them.

Replaces: `AsyncLLM.generate`.
Why: every kind of answer is made from its outputs, and a plugin has no hook there.
Relies on: `generate` being called with the engine's input and sampling parameters, which it does
not read before its first output is asked for; closing it aborts the request. With several
data-parallel engines `collective_rpc` returns the first one's answer, `call_utility_all_async`
every one's.
vLLM versions: 0.31 to 0.33; 0.31 lacks the latter.
Goes when: a plugin can see a request's outputs.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TYPE_CHECKING, Any

from vllm_pruner.compat.patching import Patch, apply

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

__all__ = ["Outputs", "ask_workers", "asks_all_engines", "patch_generate", "queued_tokens"]

Outputs = AsyncGenerator[Any, None]

_Seen = Callable[["AsyncLLM", Any, Any, str, Outputs], Outputs]

_seen: dict[str, _Seen] = {}


def patch_generate(user: str, seen: _Seen) -> None:
    """Pass engines' outputs through a function. Safe to call again.

    Args:
        user: name of the caller; a second function of the same user replaces the first.
        seen: called with the engine, its input, the request's own sampling parameters, which it may
            change, the request's id and the outputs, not yet started; returns the outputs from
            which the answer is made.

    Raises:
        RuntimeError: this vLLM lacks the method.
    """
    from vllm.v1.engine.async_llm import AsyncLLM

    def through_all(generate: Callable[..., Outputs]) -> Callable[..., Outputs]:
        def generate_seen(
            self: AsyncLLM, prompt: Any, sampling_params: Any, request_id: str, **kwargs: Any
        ) -> Outputs:
            outputs = generate(self, prompt, sampling_params, request_id, **kwargs)
            for function in _seen.values():
                outputs = function(self, prompt, sampling_params, request_id, outputs)
            return outputs

        return generate_seen

    apply(Patch(AsyncLLM, "generate", through_all))
    _seen[user] = seen


def queued_tokens(engine: AsyncLLM) -> int | None:
    """Return the prompt tokens of this process's requests that have no output token yet; None on
    vLLM 0.31, which does not say."""
    ask = getattr(engine, "get_num_queued_tokens", None)
    return None if ask is None else int(ask())


def asks_all_engines(engine: AsyncLLM) -> bool:
    """Whether `ask_workers` hears of every engine."""
    several = engine.vllm_config.parallel_config.data_parallel_size > 1
    return not several or hasattr(engine.engine_core, "call_utility_all_async")


async def ask_workers(engine: AsyncLLM, method: str, *arguments: object) -> list[Any]:
    """Call a method that vtprune adds to workers; return the answers of all workers of all engines.

    Raises:
        RuntimeError: there are several engines, and this vLLM returns only the first one's answer.
    """
    ask_all = getattr(engine.engine_core, "call_utility_all_async", None)
    if ask_all is not None:
        answers = await ask_all("collective_rpc", method, None, arguments, None)
        return [answer for of_engine in answers for answer in of_engine]
    if not asks_all_engines(engine):
        raise RuntimeError("vtprune: this vLLM cannot ask each of several engines for faults")
    answered: Sequence[Any] = await engine.collective_rpc(method, args=arguments)
    return list(answered)
