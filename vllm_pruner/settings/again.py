"""What the server asks of a request that it answers again itself, to compare.

It stands where a client's settings do, and is of a type that no client can send.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

__all__ = ["UNPRUNED", "Again", "Unpruned"]


@final
class Unpruned:
    """Settings that leave everything whole, whatever the operator allows to clients."""


UNPRUNED: Final = Unpruned()


@dataclass(frozen=True, slots=True)
class Again:
    """A request's settings; its prompt is not counted as traffic."""

    settings: object
    """A client's, None if it said nothing; or `UNPRUNED`."""
