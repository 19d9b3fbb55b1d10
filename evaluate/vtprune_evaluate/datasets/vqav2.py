"""VQAv2 (Goyal et al., CVPR 2017): `v2_OpenEnded_mscoco_val2014_questions.json`,
`v2_mscoco_val2014_annotations.json` and the folder `val2014`, as visualqa.org publishes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from vtprune_evaluate.datasets.vqa_words import vqa_accuracy
from vtprune_evaluate.item import Dataset, DatasetError, Item, mean_score, need

__all__ = ["VQAV2"]

SHORT = "\nAnswer the question using a single word or phrase."


def _items(folder: Path | None, limit: int | None) -> Iterator[Item]:
    if folder is None:
        raise DatasetError("vqav2 is read from a folder: give --data")
    questions = json.loads(need(folder / "v2_OpenEnded_mscoco_val2014_questions.json").read_text())[
        "questions"
    ]
    annotations = json.loads(need(folder / "v2_mscoco_val2014_annotations.json").read_text())
    answers = {entry["question_id"]: entry for entry in annotations["annotations"]}
    for question in islice(questions, limit):
        entry = answers[question["question_id"]]
        file = need(folder / "val2014" / f"COCO_val2014_{question['image_id']:012d}.jpg")
        yield Item(
            str(question["question_id"]),
            str(question["image_id"]),
            file.read_bytes,
            question["question"] + SHORT,
            [answer["answer"] for answer in entry["answers"]],
            entry["answer_type"],
        )


VQAV2 = Dataset("vqav2", _items, vqa_accuracy, mean_score)
