"""The error for a request that is refused because of its pruning settings: vLLM's own 400."""

from __future__ import annotations

from vllm.exceptions import VLLMValidationError

from vllm_pruner.settings.config import KEY
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.telemetry import metrics

__all__ = ["refusal", "settings_refusal"]


def refusal(sentence: str, parameter: str = KEY) -> VLLMValidationError:
    """Count a refusal and return the exception to raise.

    Args:
        sentence: what is wrong, with the value and what is allowed.
        parameter: the `param` of OpenAI's error format.
    """
    metrics.REFUSALS.add()
    return VLLMValidationError(sentence, parameter=parameter)


def settings_refusal(error: ConfigError) -> VLLMValidationError:
    """Count a refusal of a request's settings and return the exception to raise."""
    return refusal(f"{KEY}: {error.at_request()}")
