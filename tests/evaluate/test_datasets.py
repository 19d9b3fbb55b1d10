"""The published data sets: their file formats, ten items each, and their official scoring."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from vtprune_evaluate.datasets import DATASETS
from vtprune_evaluate.datasets.vqa_words import normalize, vqa_accuracy
from vtprune_evaluate.item import DatasetError, Item

DRAWN = {"synthetic", "synthetic-2", "synthetic-ragged", "pages", "pages-large"}
PHOTO = (Path(__file__).parents[2] / "assets" / "photos" / "cat.jpg").read_bytes()


def put(file: Path, content: Any = PHOTO) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        file.write_text(content if isinstance(content, str) else json.dumps(content))


def read(name: str, folder: Path, limit: int | None = None) -> list[Item]:
    items = list(DATASETS[name].items(folder, limit))
    assert all(item.load() == PHOTO for item in items)
    assert len({item.id for item in items}) == len(items)
    return items


def records(name: str, items: list[Item], answers: list[str]) -> list[dict[str, Any]]:
    score = DATASETS[name].score
    return [
        {
            "image": item.image,
            "group": item.group,
            "answer": answer,
            "reference": item.reference,
            "score": score(answer, item.reference),
        }
        for item, answer in zip(items, answers, strict=True)
    ]


def test_pope(tmp_path: Path) -> None:
    lines = []
    for i in range(10):
        image = f"COCO_val2014_{i // 2:012d}.jpg"
        put(tmp_path / "val2014" / image)
        question = {"question_id": i + 1, "image": image, "text": "Is there a dog in the image?"}
        lines.append(json.dumps(question | {"label": "yes" if i < 5 else "no"}))
    put(tmp_path / "coco_pope_popular.json", "\n".join(lines) + "\n")
    items = read("pope", tmp_path)
    assert len(items) == 10
    assert items[0].group == "popular"
    assert items[0].prompt.startswith("Is there a dog in the image?\n")
    yes, no = "Yes, there is. No doubt.", "There is not a dog."
    figures = DATASETS["pope"].summarize(
        records("pope", items, [yes] * 4 + [no] + [yes] + [no] * 4)
    )
    assert figures == {"accuracy": 80, "precision": 80, "recall": 80, "f1": 80, "yes": 50}


def test_gqa(tmp_path: Path) -> None:
    questions = {
        f"20{i}": {
            "imageId": f"n{i}",
            "question": "What color is the bus?",
            "answer": "red",
            "isBalanced": True,
            "types": {"structural": "query"},
        }
        for i in range(10)
    }
    put(tmp_path / "testdev_balanced_questions.json", questions)
    for i in range(10):
        put(tmp_path / "images" / f"n{i}.jpg")
    items = read("gqa", tmp_path, 7)
    assert [item.id for item in items] == [f"20{i}" for i in range(7)]
    score = DATASETS["gqa"].score
    assert [score(said, "red") for said in ("Red.", " red", "dark red")] == [1, 1, 0]


def test_textvqa(tmp_path: Path) -> None:
    entries = [
        {
            "question_id": 34602 + i,
            "image_id": f"0054c91397f2fe0{i}",
            "question": "what is the brand?",
            "answers": ["nous les gosses"] * 2 + ["dakota"] * 8,
        }
        for i in range(10)
    ]
    put(tmp_path / "TextVQA_0.5.1_val.json", {"data": entries})
    for entry in entries:
        put(tmp_path / "train_images" / f"{entry['image_id']}.jpg")
    items = read("textvqa", tmp_path)
    figures = DATASETS["textvqa"].summarize(
        records("textvqa", items, ["Dakota"] * 5 + ["Nous les gosses!"] * 5)
    )
    # Two of ten: eight people see two others' votes, the two see one: (8 x 2/3 + 2 x 1/3) / 10.
    assert figures["accuracy"] == pytest.approx((100 + 60) / 2)


def test_vqav2(tmp_path: Path) -> None:
    questions, annotations = [], []
    for i in range(10):
        put(tmp_path / "val2014" / f"COCO_val2014_{262148 + i:012d}.jpg")
        key = {"image_id": 262148 + i, "question_id": 262148000 + i}
        questions.append(key | {"question": "How many dogs?"})
        answers = [{"answer": "2", "answer_confidence": "yes", "answer_id": n} for n in range(10)]
        annotations.append(key | {"answers": answers, "answer_type": "number"})
    put(tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json", {"questions": questions})
    put(tmp_path / "v2_mscoco_val2014_annotations.json", {"annotations": annotations})
    items = read("vqav2", tmp_path)
    assert items[3].group == "number"
    assert [DATASETS["vqav2"].score(said, items[0].reference) for said in ("Two", "3")] == [1, 0]


def test_mme(tmp_path: Path) -> None:
    for i in range(5):
        put(tmp_path / "existence" / f"00{i}.jpg")
        lines = "Is there a cat? Please answer yes or no.\tYes\nIs there a dog?\tNo\n"
        put(tmp_path / "existence" / f"00{i}.txt", lines)
    items = read("mme", tmp_path)
    assert len(items) == 10
    assert len({item.image for item in items}) == 5
    answers = ["Yes", "No"] * 3 + ["Yes.", "yes it is", "a cat", "No"]
    figures = DATASETS["mme"].summarize(records("mme", items, answers))
    assert figures["existence"] == pytest.approx(80 + 60)  # 8 of 10 questions, 3 of 5 images
    assert figures["perception"] == figures["existence"]
    assert figures["cognition"] == 0


def test_scienceqa(tmp_path: Path) -> None:
    problem = {"question": "Which is a mammal?", "choices": ["cat", "ant"], "answer": 0, "hint": ""}
    problems = {str(i): problem | {"image": "image.png" if i else None} for i in range(11)}
    put(tmp_path / "problems.json", problems)
    put(tmp_path / "pid_splits.json", {"test": list(problems), "train": []})
    for i in range(1, 11):
        put(tmp_path / "images" / "test" / str(i) / "image.png")
    items = read("scienceqa", tmp_path)
    assert len(items) == 10, "the one without an image is left out"
    assert "Which is a mammal?\nA. cat\nB. ant\nAnswer with" in items[0].prompt
    score = DATASETS["scienceqa"].score
    said = ("A", "A. cat", "The answer is A.", "B", "A cat", "cat")
    assert [score(answer, "A") for answer in said] == [1, 1, 1, 0, 0, 0]


@pytest.mark.parametrize("said, compared", [
    ("The  dogs.", "dogs"), ("two", "2"), ("1,000", "1000"), ("3.5", "3.5"), ("dont", "don't"),
    ("red/white", "red white"), ("yes!", "yes"), ("A man, a plan", "man plan"), ("It's", "it's"),
])  # fmt: skip
def test_vqa_normalisation(said: str, compared: str) -> None:
    assert normalize(said) == compared


def test_vqa_accuracy_leaves_one_person_out() -> None:
    people = ["cat"] * 3 + ["dog"] * 7
    # Seven people see three cats: 1; three see two: 2/3.
    assert vqa_accuracy("cat", people) == pytest.approx((7 + 3 * 2 / 3) / 10)


@pytest.mark.parametrize("name", sorted(set(DATASETS) - DRAWN - {"lmms-eval"}))
def test_a_missing_file_is_one_sentence(name: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"give --data"):
        list(DATASETS[name].items(None, None))
    with pytest.raises(DatasetError, match=rf"{tmp_path}|needs"):
        list(DATASETS[name].items(tmp_path / "nowhere", None))
