"""The demo's scenes and questions as files, as lmms-eval and VLMEvalKit read them."""

from __future__ import annotations

import csv
import json
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path

from vtprune_evaluate.item import Item

__all__ = ["write_lines", "write_table"]


def write_lines(items: Sequence[Item], folder: Path) -> None:
    """Write `questions.jsonl` and its pictures, for lmms-eval."""
    lines = []
    for item in items:
        picture = folder / f"{item.image}.png"
        picture.write_bytes(item.load())
        lines.append({"image": picture.name, "question": item.prompt, "answer": item.reference})
    (folder / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_table(items: Sequence[Item], folder: Path) -> None:
    """Write `GQA_Scenes.tsv`, which has the pictures in it, for VLMEvalKit."""
    with (folder / "GQA_Scenes.tsv").open("w", newline="") as out:
        table = csv.writer(out, delimiter="\t")
        table.writerow(["index", "image", "question", "answer", "category"])
        for number, item in enumerate(items):
            picture = b64encode(item.load()).decode()
            table.writerow([number, picture, item.prompt, item.reference, item.group])
