"""The command line: flags, help that ends in an example, and output with one line per row.

Nothing heavy is imported before it is needed, so that help appears at once.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from vtprune_server.command import estimate, explain, methods
from vtprune_server.command.ask import Asked, CommandError
from vtprune_server.command.plan import add_plan, plan
from vtprune_server.command.settings_flags import add_settings, settings_of

__all__ = ["EXAMPLES", "main"]

EXAMPLES = {
    "methods": "vtprune methods",
    "estimate": "vtprune estimate photo.jpg --rate 0.9",
    "explain": 'vtprune explain photo.jpg --question "What is on the left?" --method adafv',
    "evaluate": "vtprune evaluate --items 2 --methods scope --keep 1/9",
    "plan": "vtprune plan --requests 200 --visual-tokens 576 --rate 8/9 --answer 64 --ttft 1",
    "tune": "vtprune tune --items 2 --method scope --bound 5",
}
"""The last line of each command's help."""

_ACCURACY = {"evaluate": "run", "tune": "tune"}
"""Commands that `vtprune_evaluate` implements, with its names for them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; 1 after one sentence on standard error."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given and given[0] in _ACCURACY:
        from vtprune_evaluate.__main__ import main as accuracy

        name, *rest = given
        return accuracy([_ACCURACY[name], *rest], f"vtprune {name}", EXAMPLES[name])
    arguments = _parser().parse_args(given)
    try:
        if arguments.command == "plan":
            sys.stdout.write(plan(arguments))
        else:
            _print(_rows(arguments))
    except CommandError as error:
        sys.stderr.write(f"vtprune: {error}\n")
        return 1
    return 0


def _rows(arguments: Namespace) -> list[tuple[str, str]]:
    """Run a command and return the rows of its output."""
    if arguments.command == "methods" and arguments.url is None:
        return methods.installed()
    asked = Asked(arguments.url, arguments.api_key)
    if arguments.command == "methods":
        return methods.of_server(asked)
    settings = settings_of(arguments)
    if arguments.command == "estimate":
        return estimate.estimate(asked, arguments.file, settings, arguments.detail)
    return explain.explain(asked, arguments.file, arguments.question, settings, arguments.out)


def _print(rows: Iterable[tuple[str, str]]) -> None:
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    sys.stdout.write("".join(f"{name:{width}}  {text}\n" for name, text in rows))


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        "vtprune",
        description="Which visual tokens are kept, and what that costs.",
        epilog=f"example:\n  {EXAMPLES['methods']}",
        formatter_class=RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    listing = _add(commands, "methods", "methods that are installed, or that a server allows")
    _add_server(listing, None)
    counting = _add(commands, "estimate", "visual tokens of images before and after pruning")
    counting.add_argument("file", type=Path, nargs="+", help="an image")
    counting.add_argument("--detail", default="auto", help="OpenAI's: auto, low or high")
    looking = _add(commands, "explain", "which tokens of an image are kept, as a picture")
    looking.add_argument("file", type=Path, help="an image")
    looking.add_argument("--question", default="What is in this picture?", help="about it")
    looking.add_argument(
        "--out", type=Path, default=Path("kept.png"), help="the picture (%(default)s)"
    )
    add_plan(_add(commands, "plan", "machines that a traffic needs, with and without pruning"))
    for command in (counting, looking):
        add_settings(command)
        _add_server(command, "http://localhost:8000")
    _add(commands, "evaluate", "accuracy of a server, by method and kept share")
    _add(commands, "tune", "the highest rate within a bound of unpruned")
    return parser


def _add(commands: Any, name: str, about: str) -> ArgumentParser:
    parser: ArgumentParser = commands.add_parser(
        name,
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        epilog=f"example:\n  {EXAMPLES[name]}",
        formatter_class=RawDescriptionHelpFormatter,
    )
    return parser


def _add_server(parser: ArgumentParser, url: str | None) -> None:
    """Add the flags that name the server; without a default URL, the command need not have one."""
    default = url and os.environ.get("VTPRUNE_URL", url)
    parser.add_argument("--url", default=default, help="the server (VTPRUNE_URL; %(default)s)")
    key = os.environ.get("VLLM_API_KEY", "")
    parser.add_argument("--api-key", default=key, help="its key (VLLM_API_KEY)")
