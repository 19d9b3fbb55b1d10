"""POPE (Li et al., EMNLP 2023): `coco_pope_{random,popular,adversarial}.json`, one JSON object a
line, and the folder `val2014`. The positive class of precision, recall and F1 is `yes`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from vtprune_evaluate.datasets.vqav2 import SHORT
from vtprune_evaluate.item import Dataset, DatasetError, Item, need

__all__ = ["POPE"]

_KINDS = ("random", "popular", "adversarial")


def _lines(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    found = [kind for kind in _KINDS if (folder / f"coco_pope_{kind}.json").exists()]
    for kind in found or _KINDS[:1]:
        for line in need(folder / f"coco_pope_{kind}.json").read_text().splitlines():
            if line.strip():
                yield kind, json.loads(line)


def _items(folder: Path | None, limit: int | None) -> Iterator[Item]:
    if folder is None:
        raise DatasetError("pope is read from a folder: give --data")
    for kind, entry in islice(_lines(folder), limit):
        file = need(folder / "val2014" / entry["image"])
        key, prompt = f"{kind}-{entry['question_id']}", entry["text"] + SHORT
        yield Item(key, entry["image"], file.read_bytes, prompt, entry["label"], kind)


def _says_yes(answer: str) -> bool:
    """Whether the first sentence has no `no` or `not`: the rule of the official script."""
    words = re.split(r"[\s,]+", answer.split(".")[0])
    return not {"No", "no", "not"} & set(words)


def _score(answer: str, reference: str) -> float:
    return float(_says_yes(answer) == (reference == "yes"))


def _summarize(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    pairs = [(_says_yes(record["answer"]), record["reference"] == "yes") for record in records]
    both = sum(said and true for said, true in pairs)
    said, true = sum(said for said, _ in pairs), sum(true for _, true in pairs)
    return {
        "accuracy": 100 * sum(said == true for said, true in pairs) / len(pairs),
        "precision": 100 * both / max(said, 1),
        "recall": 100 * both / max(true, 1),
        "f1": 200 * both / max(said + true, 1),
        "yes": 100 * said / len(pairs),
    }


POPE = Dataset("pope", _items, _score, _summarize)
