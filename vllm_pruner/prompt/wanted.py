"""What a request wants of pruning, as its prompt's keyword arguments carry it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final, NamedTuple

from vllm_pruner.prompt.body import check_keys
from vllm_pruner.prompt.live_rate import rate_for
from vllm_pruner.settings.again import UNPRUNED, Again
from vllm_pruner.settings.keys import DUMMY, KEY

if TYPE_CHECKING:
    from vllm.multimodal.processing import ProcessorInputs

    from vllm_pruner.settings.server import ServerConfig

__all__ = ["Wanted", "as_dummy", "taken"]

_OURS: Final = object()
"""The mark of dummy inputs, which no client can send."""


class Wanted(NamedTuple):
    """What one prompt is made with."""

    settings: object
    """The request's settings; None if it has none."""

    rate: float | None
    """The server's own rate for it, if that moves; else None."""

    is_dummy: bool
    """Whether the items are vLLM's, to measure memory, and no client's."""

    is_traffic: bool
    """Whether it is counted among the requests."""

    has_to_fit: bool
    """Whether we refuse it if it is too long. vLLM does so with what the server itself asks
    unpruned, and what is only counted may be of any length."""


def taken(inputs: ProcessorInputs, config: ServerConfig) -> tuple[ProcessorInputs, Wanted]:
    """Return the inputs without our keyword arguments, and what these say.

    Args:
        inputs: vLLM's, of one prompt.
        config: the operator's settings.

    Raises:
        VLLMValidationError: a 400 for the client: an argument was probably meant for us.
    """
    kwargs = dict(inputs.hf_processor_mm_kwargs)
    is_dummy = kwargs.pop(DUMMY, None) is _OURS
    requested = kwargs.pop(KEY, None)
    check_keys(kwargs, "in mm_processor_kwargs")
    again = requested if isinstance(requested, Again) else None
    wanted = Wanted(
        settings=requested if again is None else again.settings,
        rate=None if is_dummy else rate_for(config, requested),
        is_dummy=is_dummy,
        is_traffic=not is_dummy and (again is None or again.is_counted),
        has_to_fit=not is_dummy
        and (again is None or (again.is_answered and again.settings is not UNPRUNED)),
    )
    return dataclasses.replace(inputs, hf_processor_mm_kwargs=kwargs), wanted


def as_dummy(inputs: ProcessorInputs) -> ProcessorInputs:
    """Mark inputs as vLLM's dummies."""
    marked = {**inputs.hf_processor_mm_kwargs, DUMMY: _OURS}
    return dataclasses.replace(inputs, hf_processor_mm_kwargs=marked)
