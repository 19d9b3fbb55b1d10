"""Questions of one's own: a file of JSON lines, `{"image": FILE, "question": TEXT}`, with an
`"answer"`, one or a list, where it is known, and a `"group"` for columns of the table.

Scored by the F1 of words, as SQuAD is (Rajpurkar et al., EMNLP 2016), against the best of the right
answers; of one word that is equality. Where none is given, the unpruned answer stands for it: the
figure then says how far answers change, not how right they are.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from vtprune_evaluate.datasets.vqa_words import normalize
from vtprune_evaluate.item import Dataset, DatasetError, Item, mean_score, need

__all__ = ["OWN"]

_ALLOWED = 'lines such as {"image": "a.jpg", "question": "What is it?", "answer": "a cat"}'


def _items(file: Path | None, limit: int | None) -> Iterator[Item]:
    if file is None:
        raise DatasetError("own is read from a file: give --data questions.jsonl")
    with need(file).open(encoding="utf-8") as lines:
        for number, line in enumerate(islice(lines, limit), 1):
            yield _item(file, number, line)


def _item(file: Path, number: int, line: str) -> Item:
    try:
        entry = json.loads(line)
        image, question, answer = entry["image"], entry["question"], entry.get("answer")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DatasetError(f"{file}, line {number}: {error!r}; allowed: {_ALLOWED}") from None
    picture = need(file.parent / image)
    answers = [answer] if isinstance(answer, str) else answer
    group = str(entry.get("group", ""))
    return Item(str(number), str(image), picture.read_bytes, str(question), answers, group)


def _score(answer: str, references: Sequence[str] | None) -> float:
    """Without references it is the unpruned answer, which stands for them."""
    return 1.0 if references is None else max(_f1(answer, each) for each in references)


def _f1(answer: str, reference: str) -> float:
    said, right = (Counter(normalize(text).split()) for text in (answer, reference))
    if not said or not right:
        return float(said == right)
    return 2 * (said & right).total() / (said.total() + right.total())


OWN = Dataset("own", _items, _score, mean_score, max_tokens=64)
"""The set of whoever asks."""
