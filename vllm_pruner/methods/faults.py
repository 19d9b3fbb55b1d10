"""A method of another package that breaks the contract: the sentence that its requests get."""

from __future__ import annotations

__all__ = ["MethodFault"]

_LONGEST = 300
"""Characters of a fault at most: a method may raise with all that it looked at."""


class MethodFault(RuntimeError):
    """The message names the method, its package and what it did; it is one sentence fit for a
    client. No `ValueError`, which would be the client's fault."""

    def __init__(self, method: str, package: str, fault: str) -> None:
        """Make the sentence.

        Args:
            method: its name.
            package: that it comes from.
            fault: a verb and what is allowed, such as "returned None; allowed: a tensor".
        """
        line = " ".join(fault.split())
        short = line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."
        super().__init__(f"method {method!r} of package {package} {short}")
        self.method = method
