"""python -m vtprune_evaluate run|tune|table: accuracy over HTTP, by method and rate.

run   asks a data set's questions unpruned and with every method at every kept share; writes one
      line per question to --out, and a table and a plot next to it. Running again continues.
tune  finds the highest rate of one method whose accuracy stays within a bound of unpruned,
      compares it with a plain resize and a random choice, and ends with a command that serves it.
table writes the table and the plot of a results file, without asking anything.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from vtprune_evaluate.client import Server, ServerError
from vtprune_evaluate.contender import DEFAULT_METHOD, contenders
from vtprune_evaluate.datasets import DATASETS
from vtprune_evaluate.item import Dataset, DatasetError, Item
from vtprune_evaluate.report import markdown
from vtprune_evaluate.run import Record, evaluate, read_records, with_references
from vtprune_evaluate.terminal import plot, progress, say
from vtprune_evaluate.tune_command import BESIDE, run_tune

PROG = "python -m vtprune_evaluate"
URL = os.environ.get("VTPRUNE_URL", "http://localhost:8000")
SHARES = [Fraction(1, n) for n in (2, 4, 9, 16)]


def _parser(prog: str | None, example: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        PROG,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = _add(commands, "run", "accuracy of methods at kept shares", prog, example)
    run.add_argument("--methods", nargs="+", default=[DEFAULT_METHOD], metavar="NAME[{JSON}]")
    run.add_argument("--keep", nargs="+", type=Fraction, default=SHARES, metavar="SHARE")
    run.add_argument(
        "--floor",
        nargs="?",
        const="text",
        default="",
        choices=("text", "content"),
        help="also each with a floor: for print (text, if you name none), or under all but tokens "
        "of one brightness",
    )
    finder = _add(commands, "tune", "the highest rate within a bound of unpruned", prog, example)
    finder.add_argument("--method", default=DEFAULT_METHOD, metavar="NAME[{JSON}]")
    finder.add_argument("--bound", type=float, default=1.0, help="points below unpruned")
    finder.add_argument("--sure", action="store_true", help="within it with 95 %% confidence")
    finder.add_argument(
        "--beside", nargs="*", default=BESIDE, metavar="NAME", help="baselines at the same shares"
    )
    table = _add(commands, "table", "table and plot of a results file", prog, example)
    for command in (run, finder):
        command.add_argument("--url", default=URL, help="without /v1 (VTPRUNE_URL)")
        command.add_argument("--model", default="demo")
        command.add_argument("--api-key", default="")
        command.add_argument("--concurrency", type=int, default=8)
        command.add_argument("--data", type=Path, help="folder, file or task of the data set")
        command.add_argument("--items", type=int, help="how many questions to ask")
    for command in (run, finder, table):
        command.add_argument("--dataset", choices=DATASETS, default="synthetic")
        command.add_argument("--out", type=Path, default=Path("evaluation.jsonl"))
    return parser


def _add(
    commands: Any, name: str, about: str, prog: str | None, example: str
) -> argparse.ArgumentParser:
    """Add a command; `prog` is its name in the help of another program."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        prog=prog or f"{PROG} {name}",
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        epilog=example and f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def _run(arguments: argparse.Namespace, server: Server, data: Dataset, items: list[Item]) -> None:
    first, *others = contenders(arguments.methods, arguments.keep, arguments.floor)
    show = progress(data.name)
    records = evaluate(server, data, items, [first], arguments.out, show)
    items = with_references(items, records)
    records = evaluate(server, data, items, [first, *others], arguments.out, show)
    _show(data, records, arguments)


def _show(data: Dataset, records: Sequence[Record], arguments: argparse.Namespace) -> None:
    table = markdown(data, records)
    arguments.out.with_suffix(".md").write_text(table + "\n")
    plot(records, arguments.out.with_suffix(".png"))
    say(table)


def main(argv: Sequence[str] | None = None, prog: str | None = None, example: str = "") -> int:
    """Run a command and return its exit status; 1 after one sentence on standard error.

    Args:
        argv: the command's name and flags.
        prog: the program's name in the help, if not this module's.
        example: the example at the end of the help.
    """
    arguments = _parser(prog, example).parse_args(argv)
    data = DATASETS[arguments.dataset]
    if arguments.command == "table":
        mine = [each for each in read_records(arguments.out) if each["dataset"] == data.name]
        if not mine:
            sys.stderr.write(f"{arguments.out} holds no answers about {data.name}\n")
            return 1
        _show(data, mine, arguments)
        return 0
    server = Server(arguments.url, arguments.model, arguments.concurrency, arguments.api_key)
    try:
        items = list(data.items(arguments.data, arguments.items))
        (_run if arguments.command == "run" else run_tune)(arguments, server, data, items)
    except (DatasetError, ServerError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
