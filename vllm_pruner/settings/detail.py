"""OpenAI's `image_url.detail`: how closely the model should look at one image.

`auto` means the settings of the request or the server; `low` and `high` have rates that the
operator sets. `low` never keeps more than `auto` and `high` never less, so that the levels keep
their meaning whatever the server's own rate is.
"""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict

from vllm_pruner.settings.limits import Rate

__all__ = ["AUTO", "LEVELS", "TIMES", "DetailRates"]

AUTO: Final = "auto"
LEVELS: Final = (AUTO, "low", "high")
TIMES: Final = {AUTO: 1.0, "low": 0.25, "high": 4.0}
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
