"""Attributes of ours on vLLM's span of a request.

Replaces: `AsyncLLM.generate`, and `instrument_manual` where `vllm.v1.engine.output_processor` has
imported it.
Why: vLLM makes the span `llm_request` when the last token is there, in the API server, with
explicit times: no span is current while the request runs, and a span processor would see neither
the request nor, in time, its attributes.
Relies on: `generate` getting the engine's input and the request's name; `instrument_manual` being
called with that name among the attributes, before `generate` ends.
vLLM versions: 0.32.
Goes when: a renderer can add to a request's span.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any

from vllm_pruner.compat.patching import Patch, apply

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

__all__ = ["patch_tracing"]

_Outputs = AsyncGenerator[Any, None]


def patch_tracing(attributes: Callable[[Any], dict[str, Any]]) -> None:
    """Add attributes to requests' spans. Requests without any take vLLM's own path. Safe to call
    again.

    Args:
        attributes: returns them by name, given an engine's input; empty for none.

    Raises:
        RuntimeError: this vLLM lacks one of the two functions.
    """
    from vllm.tracing import SpanAttributes
    from vllm.v1.engine import output_processor
    from vllm.v1.engine.async_llm import AsyncLLM

    running: dict[Any, dict[str, Any]] = {}
    name_key = SpanAttributes.GEN_AI_REQUEST_ID

    def remember(generate: Callable[..., _Outputs]) -> Callable[..., _Outputs]:
        def generate_traced(
            self: AsyncLLM, prompt: Any, sampling_params: Any, request_id: str, **kwargs: Any
        ) -> _Outputs:
            outputs = generate(self, prompt, sampling_params, request_id, **kwargs)
            added = attributes(prompt)
            return _while_running(outputs, running, request_id, added) if added else outputs

        return generate_traced

    def add(instrument: Callable[..., Any]) -> Callable[..., Any]:
        def instrument_manual(*args: Any, **kwargs: Any) -> Any:
            own = kwargs.get("attributes") or {}
            if added := running.get(own.get(name_key)):
                kwargs["attributes"] = {**own, **added}
            return instrument(*args, **kwargs)

        return instrument_manual

    apply(
        Patch(AsyncLLM, "generate", remember),
        Patch(output_processor, "instrument_manual", add),
    )


async def _while_running(
    outputs: _Outputs, running: dict[Any, dict[str, Any]], name: str, added: dict[str, Any]
) -> _Outputs:
    """Yield a request's outputs, with its attributes in `running` until they end."""
    running[name] = added
    try:
        async with contextlib.aclosing(outputs):
            async for output in outputs:
                yield output
    finally:
        running.pop(name, None)
