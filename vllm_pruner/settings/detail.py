"""OpenAI's `image_url.detail`: how closely the model should look at one image.

`auto` means the settings of the request or the server; `low`, `high` and `original` have rates that
the operator sets. `low` never keeps more than `auto`, `high` never less, and `original` never less
than `high`, so that the levels keep their meaning whatever the server's own rate is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from vllm_pruner.settings.errors import ConfigError, SettingError
from vllm_pruner.settings.limits import Rate

__all__ = ["AUTO", "DETAIL", "LEVELS", "TIMES", "DetailRates", "split", "without_detail"]

DETAIL: Final = "detail"
"""The key of a request's settings that has a level for each image."""

AUTO: Final = "auto"
LEVELS: Final = (AUTO, "low", "high", "original")
TIMES: Final = {AUTO: 1.0, "low": 0.25, "high": 4.0, "original": 16.0}
"""The weight of a level if all images of a request share one budget."""


class DetailRates(BaseModel):
    """The rates of the levels."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True
    )

    low: Rate = 0.95
    """Keeps 29 of the 576 tokens of LLaVA-1.5."""

    high: Rate = 0.5
    """Keeps 288 of them."""

    original: Rate = 0.0
    """Keeps all of them."""


def split(requested: object, images: int) -> tuple[Any, list[str]]:
    """Return a request's settings without `detail`, and a level for each of its images.

    Raises:
        ConfigError: an unknown level, or another number of them.
    """
    if not isinstance(requested, Mapping) or DETAIL not in requested:
        return requested, [AUTO] * images
    levels = requested[DETAIL]
    if not isinstance(levels, list) or any(level not in LEVELS for level in levels):
        raise SettingError(DETAIL, repr(levels), f"a list of {', '.join(LEVELS)}")
    if len(levels) != images:
        raise ConfigError(f"detail has {len(levels)} entries; allowed: one for each of {images}")
    return without_detail(requested), levels


def without_detail(requested: object) -> Any:
    """Return a request's settings without `detail`, whose levels are for images."""
    if not isinstance(requested, Mapping):
        return requested
    return {key: value for key, value in requested.items() if key != DETAIL}
