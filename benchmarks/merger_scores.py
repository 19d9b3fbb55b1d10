"""What importance is read from, on a tower with a merger: accuracy of the demo Qwen2.5-VL.

    make bench-merger-scores

Three scores of the same tokens, by methods that do nothing but rank by importance (`attention`) or
also look at how tokens differ (`vispruner`): the attention that patches receive in the last layer
that sees the whole picture, the norm of patches as they come to the merger (`--prune-importance
merger_norm`), and the norm of tokens as they leave it. The last is a method of a package that this
script makes and installs in a folder of its own: vtprune offers none, since ranking by what comes
after the merger loses text. The table goes to benchmarks/results/merger-scores.md.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

from _machine import describe
from vllm_process import VllmProcess
from vtprune_evaluate.client import Server
from vtprune_evaluate.contender import UNPRUNED, contenders
from vtprune_evaluate.datasets import DATASETS
from vtprune_evaluate.report import markdown
from vtprune_evaluate.run import evaluate

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "merger-scores.md"
SHARES = [Fraction(1, share) for share in (2, 4, 9)]
DATA = DATASETS["synthetic-ragged"]

AFTER = """
from dataclasses import replace

from vllm_pruner import methods
from vllm_pruner.methods.base import Method, VisualTokens


def _method(name: str) -> Method:
    own = methods.get(name)

    def select(tokens: VisualTokens, keep: int, options: object) -> object:
        norms = tokens.features.float().norm(dim=2)
        return own.select(replace(tokens, importance=norms), keep, options)

    return Method(f"{name}-after", select, own.options)


ATTENTION, VISPRUNER = _method("attention"), _method("vispruner")
"""
"""Methods that rank by the norm of a token behind the merger; nothing of the tower is captured."""

POINTS = """[vtprune.methods]
attention-after = after_merger:ATTENTION
vispruner-after = after_merger:VISPRUNER
"""


def main() -> None:
    """Ask two servers, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=400, help="questions")
    parser.add_argument("--concurrency", type=int, default=32)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        _install(scratch / "site")
        named = ["attention", "vispruner", "attention-after", "vispruner-after"]
        allowed = f'{{"methods": ["{named[2]}", "{named[3]}", "{named[0]}", "{named[1]}"]}}'
        records = _asked(scratch, arguments, named, "--prune-limits", allowed)
        by_norm = _asked(scratch, arguments, named[:2], "--prune-importance", "merger_norm")
    for record in by_norm:
        record["method"] += "-merger_norm"
    table = markdown(DATA, records + [each for each in by_norm if UNPRUNED not in each["method"]])
    facts = ", ".join(f"{key} {value}" for key, value in describe().items())
    print(table)
    RESULTS.write_text(f"{table}\n\n{facts}, {arguments.items} questions.\n")


def _install(site: Path) -> None:
    info = site / "after_merger-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "after_merger.py").write_text(AFTER)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: after-merger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)


def _asked(
    scratch: Path, arguments: argparse.Namespace, named: list[str], *flags: str
) -> list[dict[str, Any]]:
    """Return what a server with these flags answered, unpruned and by each method."""
    path = os.pathsep.join([str(scratch / "site"), os.environ.get("PYTHONPATH", "")])
    common = ["--plugin", "vtprune", "--dtype", "float32", "--max-num-seqs", "64"]
    model, log = str(ROOT / "demo" / "qwen"), scratch / "server.log"
    with VllmProcess(log, model, *common, *flags, PYTHONPATH=path) as process:
        server = Server(process.url, "demo", arguments.concurrency)
        items = list(DATA.items(None, arguments.items))
        file = scratch / f"{len(named)}.jsonl"
        return evaluate(server, DATA, items, contenders(named, SHARES), file)


if __name__ == "__main__":
    main()
