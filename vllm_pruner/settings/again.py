"""Settings of a prompt that is no request of its own: one that the server itself answers again, for
a comparison or its client, or one that is only counted.

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
    """A request's settings."""

    settings: object
    """The client's settings, None if it sent none; or `UNPRUNED`."""

    rate: float | None = None
    """The server's own rate when the client was answered, where that moves."""

    is_counted: bool = False
    """Whether its prompt is counted as traffic."""

    is_answered: bool = True
    """Whether an answer is made. If not, the prompt may be longer than the model takes."""
