"""Visual tokens on the outputs of an `AsyncLLM` that renders a prompt itself.

Replaces: `BaseRenderer.render_cmpl` and `InputProcessor.process_inputs`; the outputs themselves
pass through `patch_generate`.
Why: an HTTP server renders a prompt before the engine gets it, so it knows the counts. Ray Data LLM
gives the engine text and pictures, and of an output it passes on only the fields that it knows.
One of them is the request's stats, `metrics`, which it passes on whole.
Relies on: `process_inputs` rendering such a prompt in the calling thread; the stats being a
dataclass.
vLLM versions: 0.31 to 0.33.
Goes when: an output can carry a processor's data about its prompt, and Ray passes it on.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import field, make_dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from vllm_pruner.compat.generate import Outputs, patch_generate
from vllm_pruner.compat.patching import Patch, apply

if TYPE_CHECKING:
    from vllm.renderers.base import BaseRenderer
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.engine.input_processor import InputProcessor

__all__ = ["patch_raw_prompts"]

_COUNTS = "_vtprune_counts"
"""Attribute of an input processor: the counts of the requests that it renders, by request id."""

_rendered = threading.local()
"""`inputs`: what this thread has rendered of a prompt that is being processed."""


def patch_raw_prompts(name: str, counts: Callable[[Any], dict[str, Any] | None]) -> None:
    """Add an attribute to the outputs of prompts that the engine renders, and a field to their
    stats. Outputs of other prompts stay as they are. Safe to call again.

    Args:
        name: the name of the attribute and of the field.
        counts: returns the value, given the engine's input; None if there is none.

    Raises:
        RuntimeError: this vLLM lacks one of the methods.
    """
    from vllm.renderers.base import BaseRenderer
    from vllm.v1.engine.input_processor import InputProcessor

    def seen(
        engine: AsyncLLM, prompt: Any, _params: Any, request_id: str, outputs: Outputs
    ) -> Outputs:
        is_raw = not (isinstance(prompt, dict) and "type" in prompt)
        return _telling(name, engine.input_processor, request_id, outputs) if is_raw else outputs

    apply(
        Patch(BaseRenderer, "render_cmpl", _keeping),
        Patch(InputProcessor, "process_inputs", partial(_noting, counts)),
    )
    patch_generate("raw prompts", seen)


def _keeping(render: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    def render_cmpl(self: BaseRenderer, *args: Any, **kwargs: Any) -> list[Any]:
        _rendered.inputs = inputs = render(self, *args, **kwargs)
        return inputs

    return render_cmpl


def _noting(
    counts: Callable[[Any], dict[str, Any] | None], process: Callable[..., Any]
) -> Callable[..., Any]:
    def process_inputs(
        self: InputProcessor, request_id: str, prompt: Any, *args: Any, **kwargs: Any
    ) -> Any:
        _rendered.inputs = []
        request = process(self, request_id, prompt, *args, **kwargs)
        inputs, _rendered.inputs = _rendered.inputs, []
        if inputs and request_id in (wanted := vars(self).get(_COUNTS, {})):
            wanted[request_id] = counts(inputs[0])
        return request

    return process_inputs


async def _telling(
    name: str, processor: InputProcessor, request_id: str, outputs: Outputs
) -> Outputs:
    """Yield a request's outputs with its counts, which are dropped when the outputs end."""
    noted: dict[str, Any] = vars(processor).setdefault(_COUNTS, {})
    noted[request_id] = None
    try:
        async with contextlib.aclosing(outputs):
            async for output in outputs:
                said = noted.get(request_id)
                setattr(output, name, said)
                if said is not None and output.metrics is not None:
                    stats = output.metrics
                    more = {name: said}
                    output.metrics = _with_field(stats.__class__, name)(**vars(stats), **more)
                yield output
    finally:
        noted.pop(request_id, None)


@cache
def _with_field(stats: type, name: str) -> type:
    """Return a subclass of a dataclass with one more field."""
    return make_dataclass(stats.__name__, [(name, Any, field(default=None))], bases=(stats,))
