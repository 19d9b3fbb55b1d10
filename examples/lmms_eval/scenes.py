"""What scenes.yaml says of one line of questions.jsonl, `{"image": ..., "question": ...,
"answer": ...}`; file names are those of the folder in which lmms-eval runs."""

from __future__ import annotations

from typing import Any

from PIL import Image


def pictures(line: dict[str, Any]) -> list[Image.Image]:
    return [Image.open(line["image"]).convert("RGB")]


def question(line: dict[str, Any], lmms_eval_specific_kwargs: Any = None) -> str:
    return str(line["question"])


def score(line: dict[str, Any], answers: list[str]) -> dict[str, float]:
    return {"accuracy": float(answers[0].split() == line["answer"].split())}
