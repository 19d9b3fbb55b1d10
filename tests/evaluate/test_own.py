"""Questions of one's own: how they are read and scored, and what stands for a missing answer."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from vtprune_evaluate.datasets import DATASETS
from vtprune_evaluate.item import DatasetError
from vtprune_evaluate.run import with_references
from vtprune_evaluate.tune import Choice
from vtprune_evaluate.tune_command import _command

OWN = DATASETS["own"]


def _file(folder: Path, *entries: Any) -> Path:
    (folder / "a.png").write_bytes(b"picture")
    file = folder / "questions.jsonl"
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return file


def test_a_file_of_lines_is_read(tmp_path: Path) -> None:
    entry = {"image": "a.png", "question": "What?"}
    file = _file(tmp_path, {**entry, "answer": "a cat"}, {**entry, "answer": ["a", "b"]}, entry)
    items = list(OWN.items(file, None))
    assert [item.reference for item in items] == [["a cat"], ["a", "b"], None]
    assert (items[0].load(), items[0].prompt) == (b"picture", "What?")
    assert len(list(OWN.items(file, 2))) == 2


@pytest.mark.parametrize("entry", [{"image": "a.png"}, ["a.png"], "a.png"], ids=str)
def test_a_line_that_is_no_question_is_named(tmp_path: Path, entry: Any) -> None:
    with pytest.raises(DatasetError, match="questions.jsonl, line 1: .*; allowed: lines such as"):
        list(OWN.items(_file(tmp_path, entry), None))


def test_a_picture_that_is_not_there_is_named(tmp_path: Path) -> None:
    entry = {"image": "b.png", "question": "What?"}
    with pytest.raises(DatasetError, match="b.png, which does not exist"):
        list(OWN.items(_file(tmp_path, entry), None))


@pytest.mark.parametrize(
    ("answer", "references", "score"),
    [
        ("A cat.", ["cat"], 1.0),
        ("dog", ["cat"], 0.0),
        ("the black cat", ["a cat", "dog"], 2 / 3),
        ("", ["cat"], 0.0),
        ("", [""], 1.0),
        ("anything", None, 1.0),
    ],
)
def test_words_are_compared(answer: str, references: Any, score: float) -> None:
    assert OWN.score(answer, references) == pytest.approx(score)


def test_the_unpruned_answer_stands_for_one_that_is_not_known(tmp_path: Path) -> None:
    entry = {"image": "a.png", "question": "What?"}
    items = list(OWN.items(_file(tmp_path, entry, {**entry, "answer": "cat"}), None))
    records = [{"id": "1", "answer": "a dog"}, {"id": "2", "answer": "a dog"}]
    assert [item.reference for item in with_references(items, records)] == [["a dog"], ["cat"]]


def test_the_command_line_has_options_apart() -> None:
    from fractions import Fraction

    command = _command("my model", 'vispruner{"step": 4}', Choice(Fraction(1, 4), []))
    assert command == (
        "vllm serve 'my model' --plugin vtprune --prune-method vispruner "
        "--prune-options '{\"step\": 4}' --prune-rate 0.7500"
    )


@pytest.mark.skipif(find_spec("lmms_eval") is not None, reason="lmms-eval is installed")
def test_a_task_of_lmms_eval_needs_lmms_eval() -> None:
    with pytest.raises(DatasetError, match="lmms-eval is not installed: pip install lmms-eval"):
        list(DATASETS["lmms-eval"].items(Path("pope"), 1))
