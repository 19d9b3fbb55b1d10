"""Find the smallest kept share whose accuracy stays within a bound of unpruned, on a data set.

The shares of a ladder are tried by bisection. A share passes if its accuracy is at most `bound`
points below unpruned; with `sure`, the lower end of the difference's 95 % interval must be, too.
Accuracy is assumed to fall as less is kept, so shares below one that failed are not tried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from vtprune_evaluate.report import paired_difference

__all__ = ["LADDER", "Choice", "Trial", "tune"]

LADDER = [Fraction(1, n) for n in (2, 3, 4, 6, 9, 12, 16, 24, 36)]

Records = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Trial:
    """One measured share: the difference to unpruned in points, with its 95 % interval."""

    keep: Fraction
    difference: float
    low: float
    high: float
    passed: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """The result; `keep` is 1 if no share of the ladder passed."""

    keep: Fraction
    trials: list[Trial]

    @property
    def rate(self) -> float:
        return float(1 - self.keep)


def tune(
    measure: Callable[[Fraction], Records],
    unpruned: Records,
    bound: float,
    sure: bool = False,
    ladder: Sequence[Fraction] = LADDER,
) -> Choice:
    """Find the smallest share of `ladder` (descending) that passes; `bound` in points."""
    trials: list[Trial] = []
    best, low, high = Fraction(1), 0, len(ladder)
    while low < high:
        middle = (low + high) // 2
        difference, worst, most = paired_difference(measure(ladder[middle]), unpruned)
        passed = (worst if sure else difference) >= -bound
        trials.append(Trial(ladder[middle], difference, worst, most, passed))
        if passed:
            best, low = ladder[middle], middle + 1
        else:
            high = middle
    return Choice(best, trials)
