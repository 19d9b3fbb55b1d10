"""The rule that lowers a server's own rate when pruned answers no longer agree with unpruned ones.

Of each comparison of a request that had the server's rate the share of common tokens counts. Where
the mean of fifty at one rate is below the bound by more than chance explains, at 95 %, the rate
goes down: half as much again is kept. It does not go up by itself; a restart brings the operator's
back. All API servers share what was counted and what follows from it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any, Final

from vllm_pruner import envs
from vllm_pruner.prompt.agreement import Agreement
from vllm_pruner.telemetry.shared_state import shared_state

__all__ = ["ShadowRule", "is_below"]

logger = logging.getLogger("vllm.vtprune")

WINDOW: Final = 50
"""Comparisons that are judged together, and then forgotten."""

_MORE: Final = 1.5
"""Times what was kept."""

_SURE: Final = 1.96
"""Standard errors."""

_READ: Final = 1.0
"""Seconds between two looks at what other processes decided."""


def is_below(count: int, total: float, squares: float, bound: float) -> bool:
    """Return whether the mean of numbers is surely below a bound.

    Args:
        count: of the numbers, 2 or more.
        total: their sum.
        squares: the sum of their squares.
        bound: the bound.
    """
    mean = total / count
    variance = max(squares - count * mean * mean, 0.0) / (count - 1)
    return mean + _SURE * math.sqrt(variance / count) < bound


class ShadowRule:
    """What one process has to do with the rule."""

    def __init__(self, bound: float, least: float) -> None:
        """Begin.

        Args:
            bound: of the mean agreement.
            least: the rate that is never gone below.
        """
        self._bound, self._least = bound, least
        self._most: float | None = None
        self._read = float("-inf")

    def most(self) -> float | None:
        """Return the highest rate that the rule allows, None if any."""
        now = time.monotonic()
        if now - self._read >= _READ:
            self._read = now
            self._change(lambda _: None)
        return self._most

    def note(self, rate: float, agreement: Agreement) -> None:
        """Count a comparison, and judge.

        Args:
            rate: the server's, at which its images were pruned.
            agreement: of the two answers.
        """
        if agreement.longer and rate > self._least:
            share = agreement.common / agreement.longer
            self._change(lambda state: self._count(state, rate, share))

    def _change(self, change: Callable[[dict[str, Any]], None]) -> None:
        if (folder := envs.metrics_folder()) is None:
            return
        try:
            with shared_state(folder, "shadow-rule") as state:
                change(state)
                self._most = state.get("most")
        except OSError as error:  # the folder is gone: the server ends
            logger.debug("vtprune: no rule: %s", error)

    def _count(self, state: dict[str, Any], rate: float, share: float) -> None:
        most = state.get("most")
        if most is not None and rate > most:
            return  # one that was asked before the rate went down
        windows = state.setdefault("windows", {})
        count, total, squares = windows.get(key := f"{rate:.4f}", (0, 0.0, 0.0))
        count, total, squares = count + 1, total + share, squares + share * share
        windows[key] = (count, total, squares)
        if count < WINDOW:
            return
        del windows[key]
        if is_below(count, total, squares, self._bound):
            state["most"] = max(round(1 - _MORE * (1 - rate), 4), self._least, 0.0)
            state["windows"] = {}
            self._say(rate, state["most"], total / count)

    def _say(self, rate: float, most: float, mean: float) -> None:
        logger.warning(
            "vtprune: pruned answers share %.0f %% of their tokens with unpruned ones at rate "
            "%.4f, and shadow_bound is %g: from now on the rate is at most %.4f",
            100 * mean,
            rate,
            self._bound,
            most,
        )
