"""The errors of a request: vLLM's 400 for its pruning settings, and vLLM's 500 for a faulty method
of another package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vllm import exceptions
from vllm.exceptions import VLLMValidationError

from vllm_pruner.methods.faults import MethodFault
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.settings.keys import KEY
from vllm_pruner.telemetry import metrics

__all__ = ["answered", "failure", "refusal", "settings_refusal", "wishes_refusal"]


def refusal(sentence: str, parameter: str = KEY) -> VLLMValidationError:
    """Count a refusal and return the exception to raise.

    Args:
        sentence: what is wrong, with the value and what is allowed.
        parameter: the `param` of OpenAI's error format.
    """
    metrics.REFUSALS.add()
    return VLLMValidationError(sentence, parameter=parameter)


def failure(method: str, sentence: str) -> Exception:
    """Count a fault of another package's method and return the exception to raise.

    It becomes vLLM's 500, because the request was valid and the fault is the server's.

    Args:
        method: the method's name.
        sentence: the message of the `MethodFault`.
    """
    metrics.METHOD_FAULTS.add(method=method)
    kind: type[Exception] = getattr(exceptions, "GenerationError", RuntimeError)
    return kind(f"{KEY}: {sentence}")


def wishes_refusal() -> VLLMValidationError:
    """Count the refusal of what is asked of an answer whose usage has no place for it."""
    return refusal(f"{KEY}: confidence is asked for; allowed: in chat completions, one by one")


@contextmanager
def answered() -> Iterator[None]:
    """Turn errors about settings in the block into the request's errors.

    Raises:
        VLLMValidationError: a 400, for a `ConfigError`.
        GenerationError: a 500, for a `MethodFault`.
    """
    try:
        yield
    except ConfigError as error:
        raise settings_refusal(error) from None
    except MethodFault as error:
        raise failure(error.method, str(error)) from error


def settings_refusal(error: ConfigError) -> VLLMValidationError:
    """Count a refusal of a request's settings and return the exception to raise."""
    return refusal(f"{KEY}: {error.at_request()}")
