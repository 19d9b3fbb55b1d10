"""Data sets: the items to ask, and how an answer is scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Dataset", "DatasetError", "Item", "mean_score", "need"]


class DatasetError(ValueError):
    """A data set that cannot be read; the message is one sentence that names what is missing."""


@dataclass(frozen=True, slots=True)
class Item:
    """One question about one image."""

    id: str
    """Unique within its data set."""
    image: str
    """Identifies the image; items of one image are resampled together."""
    load: Callable[[], bytes]
    """Reads or draws the image file."""
    prompt: str
    reference: Any
    """The right answer or answers, as the data set's scoring takes them."""
    group: str = ""
    """The kind of question, for the columns of the table."""
    max_tokens: int | None = None
    """Most tokens of an answer, if not the data set's."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """A named set of items with its official scoring."""

    name: str
    items: Callable[[Path | None, int | None], Iterator[Item]]
    """`items(folder, limit)`: yields at most `limit` items from the folder with its files."""
    score: Callable[[str, Any], float]
    """`score(answer, reference)`: a score in [0, 1]."""
    summarize: Callable[[Sequence[Mapping[str, Any]]], dict[str, float]]
    """`summarize(records)`: the figures that papers publish, from one contender's records."""
    max_tokens: int = 16


def mean_score(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the mean score in per cent."""
    return {"accuracy": 100 * sum(record["score"] for record in records) / len(records)}


def need(path: Path) -> Path:
    """Return the path itself if it exists.

    Raises:
        DatasetError: it does not.
    """
    if not path.exists():
        raise DatasetError(f"the data set needs {path}, which does not exist")
    return path
