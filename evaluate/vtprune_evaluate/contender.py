"""What is compared: a method at a kept share, the unpruned model, or a server as it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

__all__ = ["UNPRUNED", "Contender", "contenders"]

UNPRUNED = "unpruned"
AS_IS = "as-is"
"""Asks without a word about pruning, for a server that does not run vtprune."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One line's point: how a request is to be pruned."""

    method: str
    keep: Fraction = Fraction(1)
    """Share of the visual tokens that is kept."""
    options: dict[str, Any] = field(default_factory=dict, compare=False)
    floor: bool = False
    """Whether what images show may lower what is removed; otherwise the share is kept to."""

    @property
    def label(self) -> str:
        """A text that is the same for the same settings and no others."""
        options = json.dumps(self.options, sort_keys=True) if self.options else ""
        return f"{self.method}{options}{' floor' if self.floor else ''}@{self.keep}"

    @property
    def line(self) -> str:
        """Which line of the plot it belongs to."""
        return self.label.rpartition("@")[0]

    def body(self) -> dict[str, Any]:
        """What a chat completion carries to be pruned so."""
        if self.method == AS_IS:
            return {}
        if self.method == UNPRUNED:
            return {"vtprune": {"rate": 0.0}}
        settings = {"method": self.method, "rate": float(1 - self.keep)}
        settings |= {"floor": "text"} if self.floor else {}
        return {"vtprune": settings | ({"options": self.options} if self.options else {})}


def contenders(
    methods: Sequence[str], keep: Sequence[Fraction], floor: bool = False
) -> list[Contender]:
    """Unpruned first, then every method at every share, and again with the floor if that is wanted;
    `NAME{"option": value}` sets options."""
    found = [Contender(UNPRUNED)]
    for text in methods:
        name, brace, rest = text.partition("{")
        if name in (UNPRUNED, AS_IS):
            found = [Contender(AS_IS)] if name == AS_IS else found
            continue
        options = json.loads(brace + rest) if brace else {}
        found += [
            Contender(name, share, options, under)
            for under in ([False, True] if floor else [False])
            for share in keep
        ]
    return found
