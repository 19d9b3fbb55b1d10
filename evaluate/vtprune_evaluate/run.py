"""One evaluation: ask what has not been answered yet, and append each answer to a file.

The file has one JSON object per line. Running again with the same file continues; an incomplete
last line is dropped and its question asked again.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from vtprune_evaluate.client import Answer, Server, ServerError, ask_all
from vtprune_evaluate.contender import Contender
from vtprune_evaluate.item import Dataset, Item

__all__ = ["Record", "evaluate", "read_records", "with_references"]

Record = dict[str, Any]


def read_records(file: Path) -> list[Record]:
    """Return the records of a results file, after cutting an incomplete last line off the file;
    none if there is no file."""
    if not file.exists():
        return []
    text = file.read_text()
    whole = text[: text.rfind("\n") + 1]
    if len(whole) < len(text):
        os.truncate(file, len(whole.encode()))
    return [json.loads(line) for line in whole.splitlines()]


def with_references(items: Sequence[Item], unpruned: Sequence[Record]) -> list[Item]:
    """Return the items, with the unpruned answer as reference where there is none."""
    said = {record["id"]: [record["answer"]] for record in unpruned}
    return [
        replace(item, reference=said[item.id]) if item.reference is None else item for item in items
    ]


def _record(dataset: Dataset, item: Item, contender: Contender, answer: Answer) -> Record:
    return {
        "dataset": dataset.name,
        "method": contender.line,
        "keep": str(contender.keep),
        "id": item.id,
        "image": item.image,
        "group": item.group,
        "question": item.prompt,
        "reference": item.reference,
        "answer": answer.text,
        "score": dataset.score(answer.text, item.reference),
        "original": answer.original,
        "kept": answer.kept,
    }


def _key(record: Record) -> tuple[str, str, str, str]:
    return record["dataset"], record["method"], record["keep"], record["id"]


def _write(file: TextIO, record: Record) -> None:
    file.write(json.dumps(record, ensure_ascii=False) + "\n")
    file.flush()


def evaluate(
    server: Server,
    dataset: Dataset,
    items: Sequence[Item],
    wanted: Sequence[Contender],
    file: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Record]:
    """Ask every item of every contender and return their records, earlier ones included.

    Contenders are asked one after another, so that an unfinished file has complete contenders.

    Raises:
        ServerError: the server refused a request or cannot be reached; earlier answers are kept.
    """
    asked = {_key(record): record for record in read_records(file)}
    pairs = [(item, contender) for contender in wanted for item in items]
    keys = [(dataset.name, each.line, str(each.keep), item.id) for item, each in pairs]
    work = [pair for pair, key in zip(pairs, keys, strict=True) if key not in asked]
    counts = itertools.count(len(pairs) - len(work) + 1)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as out:

        def done(item: Item, contender: Contender, answer: Answer) -> None:
            record = _record(dataset, item, contender, answer)
            asked[_key(record)] = record
            _write(out, record)
            progress(next(counts), len(pairs))

        _ask(server, work, dataset.max_tokens, done)
    return [asked[key] for key in keys]


def _ask(
    server: Server,
    work: Sequence[tuple[Item, Contender]],
    max_tokens: int,
    done: Callable[[Item, Contender, Answer], None],
) -> None:
    """Ask at once, and raise the first error alone."""
    try:
        asyncio.run(ask_all(server, work, max_tokens, done))
    except* ServerError as errors:
        raise errors.exceptions[0] from None
