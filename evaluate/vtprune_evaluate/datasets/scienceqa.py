"""ScienceQA (Lu et al., NeurIPS 2022), the test questions that have an image: `problems.json`,
`pid_splits.json` and `images/test/ID/image.png`. Scored by the letter of the chosen answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from vtprune_evaluate.item import Dataset, DatasetError, Item, mean_score, need

__all__ = ["SCIENCEQA"]

_LETTERS = "ABCDE"


def _prompt(problem: dict[str, Any]) -> str:
    choices = [
        f"{letter}. {choice}" for letter, choice in zip(_LETTERS, problem["choices"], strict=False)
    ]
    parts = [problem["hint"], problem["question"], *choices]
    ask = "Answer with the option's letter from the given choices directly."
    return "\n".join([part for part in parts if part] + [ask])


def _items(folder: Path | None, limit: int | None) -> Iterator[Item]:
    if folder is None:
        raise DatasetError("scienceqa is read from a folder: give --data")
    problems = json.loads(need(folder / "problems.json").read_text())
    test = json.loads(need(folder / "pid_splits.json").read_text())["test"]
    pictured = (key for key in test if problems[key]["image"])
    for key in islice(pictured, limit):
        problem = problems[key]
        file = need(folder / "images" / "test" / key / problem["image"])
        right = _LETTERS[problem["answer"]]
        yield Item(key, key, file.read_bytes, _prompt(problem), right, problem.get("subject", ""))


def _score(answer: str, reference: str) -> float:
    """Accept a letter alone, a letter and a period at the beginning, or `The answer is X`."""
    text = answer.strip()
    begins = re.match(rf"([{_LETTERS}])(\.|$)", text)
    says = re.search(rf"[Tt]he answer is ([{_LETTERS}])\b", text)
    found = begins or says
    return float(found is not None and found[1] == reference)


SCIENCEQA = Dataset("scienceqa", _items, _score, mean_score)
