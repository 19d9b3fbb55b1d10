"""Call what a method of another package brings, which may raise, return anything or not return.

Its code runs in a thread of its own, because nothing can interrupt a call in the thread that waits
for it. A call that does not return in time is left behind, and its method is not called again by
this process. A thread that never gives Python's lock back, a crash and an illegal access on the
device cannot be survived by anybody in the same process.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from vllm_pruner import envs, methods
from vllm_pruner.methods.faults import MethodFault

if TYPE_CHECKING:
    from vllm_pruner.methods.base import Method
    from vllm_pruner.methods.budget import Budget

__all__ = ["call", "fault", "hangs", "keep_count", "shrink"]

T = TypeVar("T")

_hanging: dict[str, str] = {}
"""Methods that did not return, and which of their functions."""


def fault(name: str, what: str) -> MethodFault:
    """Return the fault of an installed method of another package."""
    return MethodFault(name, methods.package_of(name) or "vtprune", what)


def call(name: str, what: str, function: Callable[[], T]) -> T:
    """Return what a function returns.

    Args:
        name: of the method whose function it is.
        what: the function's name in `Method`.
        function: calls it.

    Raises:
        MethodFault: it raised, or it or another function of the method did not return in time.
    """
    seconds = envs.method_seconds()
    if name in _hanging:
        raise fault(name, f"is not called again after {_hanging[name]} did not return")
    thread = _Call(function)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        _hanging[name] = what
        thread.interrupt()
        raise fault(name, f"did not return from {what} in {seconds:g} s and is not called again")
    if thread.error is not None:
        raise fault(name, f"raised {thread.said} in {what}") from thread.error
    returned: T = thread.result
    return returned


def hangs(name: str) -> bool:
    """Return whether a method did not return from a call in this process."""
    return name in _hanging


class _Call(threading.Thread):
    """One call; a daemon, so that a process can end without it."""

    result: Any = None
    error: BaseException | None = None
    said = ""
    """Of the error."""

    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__(name="vtprune-method", daemon=True)
        self._function = function

    def run(self) -> None:
        try:
            self.result = self._function()
        except BaseException as error:  # SystemExit is a fault like any other
            self.error = error
            self.said = type(error).__name__
            with suppress(Exception):
                self.said = f"{self.said}: {error}"

    def interrupt(self) -> None:
        """Ask a loop of Python's to end, which would take the processor from everybody else."""
        identity = ctypes.c_ulong(self.ident or 0)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(identity, ctypes.py_object(SystemExit))


@lru_cache(maxsize=4096)
def keep_count(method: Method, tokens: int, budget: Budget) -> int:
    """Return how many of `tokens` tokens a method keeps: the same number whenever it is asked.

    Raises:
        MethodFault: that is no number from 1 to `tokens`.
    """
    keep = call(method.name, "keep_count", lambda: method.keep_count(tokens, budget))
    if type(keep) is not int or not 1 <= keep <= tokens:
        said = f"returned {_shown(keep)} from keep_count; allowed: 1 to {tokens}"
        raise fault(method.name, said)
    return keep


@lru_cache(maxsize=4096)
def shrink(method: Method, keep: int) -> tuple[int, int] | None:
    """Return the grid of `keep` patches that a method shrinks an image to; None if it does not.

    Raises:
        MethodFault: that is no grid of `keep` patches.
    """
    if method.shrink is None:
        return None
    function = method.shrink
    grid = call(method.name, "shrink", lambda: function(keep))
    sides = grid if isinstance(grid, tuple) and len(grid) == 2 else (0, 0)
    if any(type(side) is not int or side < 1 for side in sides) or sides[0] * sides[1] != keep:
        said = f"returned {_shown(grid)} from shrink; allowed: rows and columns of {keep} patches"
        raise fault(method.name, said)
    return grid


def _shown(value: object) -> str:
    """Return what a fault says of a returned value, whose own `repr` is foreign code too."""
    return repr(value) if type(value) in (int, float, bool, str, tuple) else type(value).__name__
