"""The error for a method of another package that breaks the contract."""

from __future__ import annotations

__all__ = ["MethodFault"]

_LONGEST = 300
"""Characters of a fault at most: an exception's text may contain whole tensors."""


class MethodFault(RuntimeError):
    """Raised when a method of another package breaks the contract.

    The message is one sentence, fit for a client, that names the method, its package and what it
    did. Not a `ValueError`, because those become a client error (4xx).
    """

    def __init__(self, method: str, package: str, fault: str) -> None:
        """Build the sentence.

        Args:
            method: the method's name.
            package: the package that provides it.
            fault: the predicate of the sentence, such as "returned None; allowed: a tensor".
        """
        line = " ".join(fault.split())
        short = line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."
        super().__init__(f"method {method!r} of package {package} {short}")
        self.method = method
