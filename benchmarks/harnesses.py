"""Accuracy of a running server through the harnesses that papers use: lmms-eval and VLMEvalKit.

    make serve
    make bench-harness HARNESS=lmms-eval

The demo's scenes are written as a small local task. Every method is asked at three rates, with a
plain resize to as many tokens beside it, and unpruned. One table goes to standard output, all that
the harness prints to standard error.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import _lmms_eval
import _vlmevalkit
from vtprune_evaluate.client import Server
from vtprune_evaluate.contender import DEFAULT_METHOD, Contender, contenders
from vtprune_evaluate.datasets import DATASETS
from vtprune_evaluate.item import Item
from vtprune_evaluate.run import evaluate

HARNESSES = {"lmms-eval": _lmms_eval.accuracies, "vlmevalkit": _vlmevalkit.accuracies}
"""`accuracies(server, contenders, items, folder)`: writes the items as files into an empty folder,
asks all of every contender, and returns the accuracies in per cent."""

SHARES = [Fraction(1, 2), Fraction(1, 4), Fraction(1, 9)]
DATA = DATASETS["synthetic"]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("harness", choices=HARNESSES)
    parser.add_argument("--url", default="http://localhost:8000", help="without /v1")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--methods", nargs="+", default=[DEFAULT_METHOD])
    parser.add_argument("--keep", nargs="+", type=Fraction, default=SHARES, metavar="SHARE")
    parser.add_argument("--items", type=int, default=200)
    arguments = parser.parse_args(argv)
    server = Server(arguments.url, arguments.model)
    wanted = contenders([*arguments.methods, "resize"], arguments.keep)
    items = list(DATA.items(None, arguments.items))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokens = _tokens(server, wanted, items[0], folder / "counts.jsonl")
        found = HARNESSES[arguments.harness](server, wanted, items, folder)
    print("| method | rate | visual tokens | accuracy, % |\n|---|---|---|---|")
    for contender, count, accuracy in zip(wanted, tokens, found, strict=True):
        rate = float(1 - contender.keep)
        print(f"| {contender.method} | {rate:.3g} | {count} | {accuracy:.1f} |")


def _tokens(server: Server, wanted: Sequence[Contender], item: Item, file: Path) -> list[int]:
    """What each contender keeps of one picture; all have the same size."""
    return [record["kept"] for record in evaluate(server, DATA, [item], wanted, file)]


if __name__ == "__main__":
    main()
