"""Our attributes on vLLM's span of a request.

Replaces: `instrument_manual` as imported by `vllm.v1.engine.output_processor`; uses the patch of
`generate`, too.
Why: vLLM creates the span `llm_request` in the API server when the last token has arrived, with
explicit times. No span is current while the request runs, so nothing could add attributes to it,
and a span processor would not know the request.
Relies on: `generate` being called with the engine's input and the request's id; `instrument_manual`
being called with that id among the attributes, before `generate` ends.
vLLM versions: 0.31 to 0.33.
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
"""Our attributes of the requests being answered, by id."""


def patch_tracing(attributes: Callable[[Any], dict[str, Any]]) -> None:
    """Add attributes to requests' spans. Requests without any are left to vLLM. Safe to call
    again.

    Args:
        attributes: returns the attributes by name, given an engine's input; empty for none.

    Raises:
        RuntimeError: this vLLM lacks one of the two functions.
    """
    from vllm.tracing import SpanAttributes
    from vllm.v1.engine import output_processor

    name_key = SpanAttributes.GEN_AI_REQUEST_ID

    def remember(
        _engine: object, prompt: Any, _params: Any, name: str, outputs: Outputs
    ) -> Outputs:
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
