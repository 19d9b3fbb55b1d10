"""Attributes of ours on vLLM's span of a request.

Replaces: `instrument_manual` where `vllm.v1.engine.output_processor` has imported it; beside it,
`generate` has what engines yield.
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
from collections.abc import Callable
from typing import Any

from vllm_pruner.compat.generate import Outputs, patch_generate
from vllm_pruner.compat.patching import Patch, apply

__all__ = ["patch_tracing"]

_running: dict[Any, dict[str, Any]] = {}
"""Attributes of requests that are being answered."""


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

    name_key = SpanAttributes.GEN_AI_REQUEST_ID

    def remember(_engine: object, prompt: Any, name: str, outputs: Outputs) -> Outputs:
        added = attributes(prompt)
        return _while_running(outputs, name, added) if added else outputs

    def add(instrument: Callable[..., Any]) -> Callable[..., Any]:
        def instrument_manual(*args: Any, **kwargs: Any) -> Any:
            own = kwargs.get("attributes") or {}
            if added := _running.get(own.get(name_key)):
                kwargs["attributes"] = {**own, **added}
            return instrument(*args, **kwargs)

        return instrument_manual

    apply(Patch(output_processor, "instrument_manual", add))
    patch_generate("tracing", remember)


async def _while_running(outputs: Outputs, name: str, added: dict[str, Any]) -> Outputs:
    """Yield a request's outputs, with its attributes in `_running` until they end."""
    _running[name] = added
    try:
        async with contextlib.aclosing(outputs):
            async for output in outputs:
                yield output
    finally:
        _running.pop(name, None)
