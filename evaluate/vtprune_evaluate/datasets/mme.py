"""MME (Fu et al., 2023): a folder per category with `NAME.txt` (lines of question, tab, Yes or No)
beside `NAME.jpg` or `.png`, or with these in `questions_answers_YN` and `images`.

A category scores 100 x (accuracy + accuracy+): the share of questions answered right, and the share
of images with all questions answered right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from vtprune_evaluate.item import Dataset, DatasetError, Item, need

__all__ = ["MME"]

PERCEPTION = ["existence", "count", "position", "color", "posters"]
PERCEPTION += ["celebrity", "scene", "landmark", "artwork", "OCR"]
COGNITION = ["commonsense_reasoning", "numerical_calculation"]
COGNITION += ["text_translation", "code_reasoning"]


def _image(folder: Path, stem: str) -> Path:
    places = [folder, folder / "images"]
    files = [place / (stem + kind) for place in places for kind in (".jpg", ".png")]
    return need(next((file for file in files if file.exists()), files[0]))


def _all(folder: Path) -> Iterator[Item]:
    for category in PERCEPTION + COGNITION:
        texts = folder / category / "questions_answers_YN"
        texts = texts if texts.exists() else folder / category
        for file in sorted(texts.glob("*.txt")):
            image = _image(folder / category, file.stem)
            name = f"{category}/{file.stem}"
            for i, line in enumerate(file.read_text().splitlines()):
                if line.strip():
                    question, answer = line.split("\t")
                    key, right = f"{name}/{i}", answer.strip().lower()
                    yield Item(key, name, image.read_bytes, question, right, category)


def _items(folder: Path | None, limit: int | None) -> Iterator[Item]:
    if folder is None:
        raise DatasetError("mme is read from a folder: give --data")
    items = list(islice(_all(need(folder)), limit))
    if not items:
        raise DatasetError(f"no category of mme was found below {folder}")
    yield from items


def _score(answer: str, reference: str) -> float:
    """Score by the answer itself or a yes or no in its first four letters; else it is wrong."""
    said = answer.strip().lower()
    if said not in ("yes", "no"):
        said = next((word for word in ("yes", "no") if word in said[:4]), "other")
    return float(said == reference)


def _summarize(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    categories: dict[str, dict[str, list[float]]] = {}
    for record in records:
        images = categories.setdefault(record["group"], {})
        images.setdefault(record["image"], []).append(record["score"])
    points = {}
    for category, images in categories.items():
        scores = [score for scores in images.values() for score in scores]
        both = sum(min(scores) for scores in images.values()) / len(images)
        points[category] = 100 * (sum(scores) / len(scores) + both)
    return {
        "perception": sum(points.get(category, 0.0) for category in PERCEPTION),
        "cognition": sum(points.get(category, 0.0) for category in COGNITION),
        **points,
    }


MME = Dataset("mme", _items, _score, _summarize)
