"""TextVQA (Singh et al., CVPR 2019): `TextVQA_0.5.1_val.json` and the folder `train_images`, as
textvqa.org publishes them. No OCR tokens are added to the prompt."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from vtprune_evaluate.datasets.vqa_words import vqa_accuracy
from vtprune_evaluate.datasets.vqav2 import SHORT
from vtprune_evaluate.item import Dataset, DatasetError, Item, mean_score, need

__all__ = ["TEXTVQA"]


def _items(folder: Path | None, limit: int | None) -> Iterator[Item]:
    if folder is None:
        raise DatasetError("textvqa is read from a folder: give --data")
    entries = json.loads(need(folder / "TextVQA_0.5.1_val.json").read_text())["data"]
    for entry in islice(entries, limit):
        file = need(folder / "train_images" / f"{entry['image_id']}.jpg")
        yield Item(
            str(entry["question_id"]),
            entry["image_id"],
            file.read_bytes,
            entry["question"] + SHORT,
            entry["answers"],
        )


TEXTVQA = Dataset("textvqa", _items, vqa_accuracy, mean_score)
