"""The command `tune`: from questions to the command line that serves the rate it found.

At the shares that were tried, a plain resize to as many tokens and a random choice are measured
too: what a method gains over these is what it is worth on this set.
"""

from __future__ import annotations

import json
import shlex
from argparse import Namespace
from collections.abc import Sequence
from fractions import Fraction

from vtprune_evaluate.client import Server, ServerError, served_model
from vtprune_evaluate.contender import UNPRUNED, Contender, contenders
from vtprune_evaluate.item import Dataset, Item
from vtprune_evaluate.report import interval, paired_difference
from vtprune_evaluate.run import Record, evaluate, with_references
from vtprune_evaluate.terminal import plot, progress, say
from vtprune_evaluate.tune import Choice, tune

__all__ = ["BESIDE", "run_tune"]

BESIDE = ("resize", "random")
"""Baselines."""


class _Measured:
    """Answers of one server to one set of questions."""

    def __init__(
        self, arguments: Namespace, server: Server, data: Dataset, items: Sequence[Item]
    ) -> None:
        self._server, self._data, self._file = server, data, arguments.out
        self._items = items
        self.unpruned = self.of(Contender(UNPRUNED))
        self._items = with_references(items, self.unpruned)
        self.all = [*self.unpruned]

    def of(self, contender: Contender) -> list[Record]:
        """Ask what has not been asked before."""
        show = progress(contender.label)
        return evaluate(self._server, self._data, self._items, [contender], self._file, show)

    def at(self, method: str, keep: Fraction) -> list[Record]:
        """The answers of a method at a share."""
        records = self.of(contenders([method], [keep])[1])
        self.all += records
        return records


def run_tune(arguments: Namespace, server: Server, data: Dataset, items: Sequence[Item]) -> None:
    """Find the rate, show what it is compared with, and end with a command line.

    Args:
        arguments: of the command.
        server: that is asked.
        data: how answers are scored.
        items: the questions.

    Raises:
        ServerError: it refused a request or cannot be reached.
    """
    measured = _Measured(arguments, server, data, items)
    accuracy, low, high = interval(measured.unpruned)
    say(f"unpruned: {accuracy:.1f} % ({low:.1f} to {high:.1f}) of {len(items)} questions")
    choice = tune(
        lambda keep: measured.at(arguments.method, keep),
        measured.unpruned,
        arguments.bound,
        arguments.sure,
    )
    for trial in choice.trials:
        verdict = "within" if trial.passed else "outside"
        limits = f"{trial.difference:+.1f} points ({trial.low:+.1f} to {trial.high:+.1f})"
        say(f"kept {trial.keep}: {limits}, {verdict} the bound of {arguments.bound:g}")
    for name in arguments.beside:
        _show_beside(measured, name, choice)
    picture = arguments.out.with_suffix(".png")
    plot(measured.all, picture)
    say(f"accuracy by kept share, with 95 % intervals: {picture}")
    say(_command(served_model(server), arguments.method, choice))


def _show_beside(measured: _Measured, name: str, choice: Choice) -> None:
    """A baseline at the shares that were tried."""
    for trial in sorted(choice.trials, key=lambda each: -each.keep):
        try:
            records = measured.at(name, trial.keep)
        except ServerError as error:
            say(f"{name}: not compared, since {error}")
            return
        difference, low, high = paired_difference(records, measured.unpruned)
        say(f"{name} kept {trial.keep}: {difference:+.1f} points ({low:+.1f} to {high:+.1f})")


def _command(model: str, method: str, choice: Choice) -> str:
    """What serves the choice: of a method, its options apart."""
    name, brace, rest = method.partition("{")
    words = ["vllm", "serve", model, "--plugin", "vtprune", "--prune-method", name]
    if brace:
        words += ["--prune-options", json.dumps(json.loads(brace + rest))]
    return shlex.join([*words, "--prune-rate", f"{choice.rate:.4f}"])
