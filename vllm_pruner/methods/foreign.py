"""Call functions of methods from other packages, which may raise, return anything or hang.

Each call runs in a thread of its own, because a caller cannot interrupt a call in its own thread.
A call that does not return in time is abandoned, and its method is not called again by this
process. A process cannot survive a thread that never releases the GIL, a crash, or an illegal
memory access on the device.
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
"""By method, the name of the function that did not return in time."""


def fault(name: str, what: str) -> MethodFault:
    """Return the error for an installed method of another package; `what` is the predicate."""
    return MethodFault(name, methods.package_of(name) or "vtprune", what)


def call(name: str, what: str, function: Callable[[], T]) -> T:
    """Call one of a method's functions and return its result.

    Args:
        name: the method's name.
        what: the function's name in `Method`.
        function: makes the call.

    Raises:
        MethodFault: the function raised or did not return within `VLLM_VTPRUNE_METHOD_SECONDS`, or
            an earlier call of the same method did not.
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
    """Return whether an earlier call of a method in this process did not return in time."""
    return name in _hanging


class _Call(threading.Thread):
    """One call, in a daemon thread, so that the process can exit without it."""

    result: Any = None
    error: BaseException | None = None
    said = ""
    """The error's type and message."""

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
        """Raise SystemExit in the thread: a busy Python loop would starve all other threads."""
        identity = ctypes.c_ulong(self.ident or 0)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(identity, ctypes.py_object(SystemExit))


@lru_cache(maxsize=4096)
def keep_count(method: Method, tokens: int, budget: Budget) -> int:
    """Return how many of `tokens` tokens a method keeps. Cached, so repeated calls agree.

    Raises:
        MethodFault: the method failed, or did not return an integer from 1 to `tokens`.
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
        MethodFault: the method failed, or did not return a grid of `keep` patches.
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
    """Return a returned value as text; the type's name alone if its `repr` is foreign code."""
    return repr(value) if type(value) in (int, float, bool, str, tuple) else type(value).__name__
