"""The name by which a draft model knows the model that it drafts for.

Replaces: `SpecDecodeBaseProposer.get_model_name`.
Why: vLLM's first runner finds the id of image tokens for a draft model (EAGLE, MTP) by the name of
the target's class, and reads a field that most configurations lack where it does not know it. So a
server with such a draft did not start.
Relies on: the name being used for that alone; vLLM's own class being a base of ours.
vLLM versions: 0.31 to 0.33.
Goes when: a draft model gets the id from the target itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vllm_pruner.compat.patching import Patch, apply

__all__ = ["patch_draft_names"]


def patch_draft_names() -> None:
    """Have a class of ours go by the name of vLLM's under it. Safe to call again.

    Raises:
        RuntimeError: this vLLM lacks the method.
    """
    from vllm.v1.spec_decode.llm_base_proposer import SpecDecodeBaseProposer

    apply(Patch(SpecDecodeBaseProposer, "get_model_name", _of_stock))


def _of_stock(name_of: Callable[[Any, Any], str]) -> Callable[[Any, Any], str]:
    def get_model_name(self: Any, model: Any) -> str:
        bases = type(getattr(model, "module", model)).__mro__
        if not any(each.__module__.startswith("vllm_pruner.") for each in bases):
            return name_of(self, model)
        return next(each.__name__ for each in bases if each.__module__.startswith("vllm."))

    return get_model_name
