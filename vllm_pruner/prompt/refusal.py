"""The errors that a request gets: vLLM's own 400 for its pruning settings, and its 500 for a method
of another package that does not do what it has to."""

from __future__ import annotations

from vllm import exceptions
from vllm.exceptions import VLLMValidationError

from vllm_pruner.methods.faults import MethodFault
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.settings.keys import KEY
from vllm_pruner.telemetry import metrics

__all__ = ["failure", "refusal", "settings_refusal"]


def refusal(sentence: str, parameter: str = KEY) -> VLLMValidationError:
    """Count a refusal and return the exception to raise.

    Args:
        sentence: what is wrong, with the value and what is allowed.
        parameter: the `param` of OpenAI's error format.
    """
    metrics.REFUSALS.add()
    return VLLMValidationError(sentence, parameter=parameter)


def failure(error: MethodFault) -> Exception:
    """Count a fault of another package's method and return the exception to raise.

    It is vLLM's 500: the client's request was right, and so is every other server's answer to it.
    """
    metrics.METHOD_FAULTS.add(method=error.method)
    kind: type[Exception] = getattr(exceptions, "GenerationError", RuntimeError)
    return kind(f"{KEY}: {error}")


def settings_refusal(error: ConfigError) -> VLLMValidationError:
    """Count a refusal of a request's settings and return the exception to raise."""
    return refusal(f"{KEY}: {error.at_request()}")
