"""Settings of a request that the server itself answers again, for a comparison.

They take the place of a client's settings, and are of a type that no client can send.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

__all__ = ["UNPRUNED", "Again", "Unpruned"]


@final
class Unpruned:
    """Settings that prune nothing, whatever the operator allows to clients."""


UNPRUNED: Final = Unpruned()


@dataclass(frozen=True, slots=True)
class Again:
    """A request's settings; its prompt is not counted as traffic."""

    settings: object
    """The client's settings, None if it sent none; or `UNPRUNED`."""
