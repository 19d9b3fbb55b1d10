"""Settings of one call in front of vLLM's own processor, which takes none.

Replaces: `BaseMultiModalProcessor.apply`. A call whose arguments lack our key passes through it
unchanged.
Why: an engine that was not told to prune hands the key on to HF's processor, which ignores what it
does not know, so that a call that asks for pruning would be answered unpruned.
Relies on: every processor passing a call's own arguments through it as `hf_processor_mm_kwargs`,
and ours having taken the key out before (`prompt.wanted`).
vLLM versions: 0.31 to 0.33.
Goes when: vLLM refuses arguments that a model's processor does not have.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from vllm_pruner.compat.patching import Patch, apply

if TYPE_CHECKING:
    from vllm.multimodal.processing import ProcessorInputs

__all__ = ["patch_stock_processor"]


def patch_stock_processor(key: str, untaken: Callable[[Mapping[str, Any]], dict[str, Any]]) -> None:
    """Have `untaken` decide about calls with our key that no processor of ours took. Safe to call
    again.

    Args:
        key: our key in a call's `mm_processor_kwargs`.
        untaken: returns the arguments to go on with, given the call's; or raises the call's error.

    Raises:
        RuntimeError: this vLLM lacks the method.
    """
    from vllm.multimodal.processing import BaseMultiModalProcessor

    def checked(process: Callable[..., Any]) -> Callable[..., Any]:
        def apply_checked(self: Any, inputs: ProcessorInputs, *args: Any, **kwargs: Any) -> Any:
            if key in inputs.hf_processor_mm_kwargs:
                left = untaken(inputs.hf_processor_mm_kwargs)
                inputs = dataclasses.replace(inputs, hf_processor_mm_kwargs=left)
            return process(self, inputs, *args, **kwargs)

        return apply_checked

    apply(Patch(BaseMultiModalProcessor, "apply", checked))
