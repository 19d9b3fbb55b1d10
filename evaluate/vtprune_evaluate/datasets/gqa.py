"""GQA (Hudson and Manning, CVPR 2019): `testdev_balanced_questions.json` or
`val_balanced_questions.json`, and the folder `images`. Scored by equality of the whole answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from vtprune_evaluate.datasets.vqav2 import SHORT
from vtprune_evaluate.item import Dataset, DatasetError, Item, mean_score, need

__all__ = ["GQA"]

_FILES = ("testdev_balanced_questions.json", "val_balanced_questions.json")


def _items(folder: Path | None, limit: int | None) -> Iterator[Item]:
    if folder is None:
        raise DatasetError("gqa is read from a folder: give --data")
    found = [folder / name for name in _FILES if (folder / name).exists()]
    questions = json.loads(need((found or [folder / _FILES[0]])[0]).read_text())
    for key, entry in islice(questions.items(), limit):
        file = need(folder / "images" / f"{entry['imageId']}.jpg")
        group = entry.get("types", {}).get("structural", "")
        prompt = entry["question"] + SHORT
        yield Item(key, entry["imageId"], file.read_bytes, prompt, entry["answer"], group)


def _score(answer: str, reference: str) -> float:
    return float(answer.strip().rstrip(".").lower() == reference.lower())


GQA = Dataset("gqa", _items, _score, mean_score)
