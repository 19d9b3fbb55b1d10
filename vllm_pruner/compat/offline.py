"""Visual token counts on the outputs of `LLM`.

Replaces: `LLMEngine.add_request` and `LLMEngine.step`.
Why: the results of `LLM.chat` and `LLM.generate` are made from the engine core's output, which
lacks what the processor knows of the prompt, and has no usage.
Relies on: `add_request` being called with the request's id and the engine's input; outputs of
`step` having that id as `request_id`; the engine's output processor knowing all unfinished
requests.
vLLM versions: 0.31 to 0.33.
Goes when: an output can carry what a processor reports about its prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vllm_pruner.compat.patching import Patch, apply

if TYPE_CHECKING:
    from vllm.v1.engine.llm_engine import LLMEngine

__all__ = ["patch_offline"]

_COUNTS = "_vtprune_counts"
"""Attribute of an engine: the counts of its requests, by id."""


def patch_offline(name: str, counts: Callable[[Any], dict[str, Any] | None]) -> None:
    """Add an attribute to every output of an engine in this process. Safe to call again.

    Args:
        name: name of the attribute.
        counts: returns its value, given the engine's input; None if there are no counts.

    Raises:
        RuntimeError: this vLLM lacks one of the two methods.
    """
    from vllm.v1.engine.llm_engine import LLMEngine

    def noting(add: Callable[..., str]) -> Callable[..., str]:
        def add_request(
            self: LLMEngine, request_id: str, prompt: Any, *args: Any, **kwargs: Any
        ) -> str:
            if (said := counts(prompt)) is not None:
                vars(self).setdefault(_COUNTS, {})[request_id] = said
            return add(self, request_id, prompt, *args, **kwargs)

        return add_request

    def telling(step: Callable[[LLMEngine], list[Any]]) -> Callable[[LLMEngine], list[Any]]:
        def step_and_tell(self: LLMEngine) -> list[Any]:
            outputs = step(self)
            noted = vars(self).get(_COUNTS, {})
            for output in outputs:
                setattr(output, name, noted.get(output.request_id))
            if noted and not self.output_processor.has_unfinished_requests():
                noted.clear()  # includes aborted requests, which have no final output
            return outputs

        return step_and_tell

    apply(Patch(LLMEngine, "add_request", noting), Patch(LLMEngine, "step", telling))
