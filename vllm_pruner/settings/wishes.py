"""What a request asks of its answer, beside what it asks of its images.

The keys stand with the settings and are none: they change nothing that is kept of an image, so they
are taken off before those are read, and enter no image's identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.errors import SettingError
from vllm_pruner.settings.limits import Limits
from vllm_pruner.settings.validation import unknown, validate

__all__ = ["Wishes", "apart", "wishes_fault"]

RETRY = "retry_unpruned_below"


class Wishes(BaseModel):
    """Of one chat completion."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True
    )

    confidence: bool = False
    """`usage` says how sure the model was of the answer's first token, and how well the kept tokens
    of the images stand for those that were dropped."""

    retry_unpruned_below: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Answer again with all visual tokens where the margin of the first token is below this."""


def apart(said: object) -> tuple[Wishes | None, Any]:
    """Return what a request asks of its answer, None if nothing, and its settings without that.

    Raises:
        ConfigError: the first fault of the wishes, or a key that is neither a wish nor a setting.
    """
    if not isinstance(said, Mapping):
        return None, said
    names = [*PruneConfig.model_fields, *Wishes.model_fields]
    for key in said:
        if key not in names:
            raise unknown(str(key), said[key], names)
    wished = {key: said[key] for key in Wishes.model_fields if said.get(key) is not None}
    rest = {key: value for key, value in said.items() if key not in Wishes.model_fields}
    wishes = validate(Wishes, wished)
    return (None if wishes == Wishes() else wishes), rest


def wishes_fault(limits: Limits, wishes: Wishes) -> SettingError | None:
    """Return what is wrong with wishes under the operator's limits, or None."""
    below = wishes.retry_unpruned_below
    if below is None or limits.min_rate == 0:
        return None
    allowed = f"none, since at least {limits.min_rate:g} of an image is removed"
    return SettingError(RETRY, f"{below:g}", allowed, by="limits")
