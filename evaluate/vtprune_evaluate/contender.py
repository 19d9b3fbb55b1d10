"""The contenders of a comparison: a method at a kept share, the unpruned model, or any server."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

__all__ = ["AS_IS", "DEFAULT_METHOD", "UNPRUNED", "Contender", "contenders"]

UNPRUNED = "unpruned"
AS_IS = "as-is"
"""Sends no settings at all, for a server that does not run vtprune."""


DEFAULT_METHOD = "scope"
"""The method of LLaVA's servers unless their operator names another (`--prune-method`)."""

_NAMED = {"": "", "text": " floor", "content": " content floor"}


@dataclass(frozen=True, slots=True)
class Contender:
    """How requests are pruned: one point of a line in the plot."""

    method: str
    keep: Fraction = Fraction(1)
    """Share of the visual tokens that is kept."""
    options: dict[str, Any] = field(default_factory=dict, compare=False)
    floor: str = ""
    """The floor under the share (`floor` of a request); "" for none."""

    @property
    def label(self) -> str:
        """A text that identifies the settings."""
        options = json.dumps(self.options, sort_keys=True) if self.options else ""
        return f"{self.method}{options}{_NAMED[self.floor]}@{self.keep}"

    @property
    def line(self) -> str:
        """The line of the plot to which it belongs."""
        return self.label.rpartition("@")[0]

    def body(self) -> dict[str, Any]:
        """Return the keys to add to a chat completion request."""
        if self.method == AS_IS:
            return {}
        if self.method == UNPRUNED:
            return {"vtprune": {"rate": 0.0}}
        settings = {"method": self.method, "rate": float(1 - self.keep)}
        settings |= {"floor": self.floor} if self.floor else {}
        return {"vtprune": settings | ({"options": self.options} if self.options else {})}


def contenders(
    methods: Sequence[str], keep: Sequence[Fraction], floor: str = ""
) -> list[Contender]:
    """Return the contenders: unpruned first, then every method at every share, without a floor
    and, if `floor` names one, also with it. `NAME{"option": value}` sets options of a method."""
    found = [Contender(UNPRUNED)]
    for text in methods:
        name, brace, rest = text.partition("{")
        if name in (UNPRUNED, AS_IS):
            found = [Contender(AS_IS)] if name == AS_IS else found
            continue
        options = json.loads(brace + rest) if brace else {}
        found += [
            Contender(name, share, options, under)
            for under in dict.fromkeys(["", floor])
            for share in keep
        ]
    return found
