"""A request that is answered 400 because of its pruning settings, in vLLM's words and counted."""

from __future__ import annotations

from vllm.exceptions import VLLMValidationError

from vllm_pruner.settings.config import KEY
from vllm_pruner.telemetry import metrics

__all__ = ["refusal"]


def refusal(sentence: str, parameter: str = KEY) -> VLLMValidationError:
    """Return the exception to raise.

    Args:
        sentence: what is wrong, with the value and what is allowed.
        parameter: what OpenAI's error format names as the cause.
    """
    metrics.REFUSALS.add()
    return VLLMValidationError(sentence, parameter=parameter)
