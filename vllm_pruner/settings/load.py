"""The rates between which a server's own rate moves with its load, and when it moves.

There are few, so that a known image comes back at a rate that the caches know. Each step keeps the
same fraction of what the step before kept, and so costs the same fraction.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["STEPS", "Load", "ladder"]

STEPS: Final = 3
"""Steps from the ordinary rate to the highest."""


class Load(BaseModel):
    """When the rate rises and falls."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True
    )

    waiting: Annotated[int, Field(ge=1)] = 8
    """Requests without a first token, for each engine, from which the rate rises; a quarter as many
    count as calm."""

    kv_cache: Annotated[float, Field(gt=0.2, le=1, allow_inf_nan=False)] = 0.9
    """Used share of the KV cache from which the rate rises; 0.2 less counts as calm."""

    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0
    """Seconds of calm before each step down."""


def ladder(rate: float, most: float) -> tuple[float, ...]:
    """Return the distinct rates from `rate` to `most`, both included, ascending.

    Args:
        rate: the ordinary one, 0 or more.
        most: the highest one, `rate` or more and below 1.
    """
    kept, least = 1 - rate, 1 - most
    between = (kept * (least / kept) ** (step / STEPS) for step in range(1, STEPS))
    rates = (rate, *(round(1 - share, 4) for share in between), most)
    return tuple(dict.fromkeys(rates))
