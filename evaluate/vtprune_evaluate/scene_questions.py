"""Questions about a synthetic scene, each with one right answer.

`PLAN` is the same for every scene, so the questions of a kind have the same number of words and a
training batch needs no padding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vtprune_evaluate.scene_parts import LETTERS, SHAPES
from vtprune_evaluate.scenes import Scene, Thing

__all__ = ["NUMBERS", "PLAN", "Question", "ask"]

NUMBERS = ["zero", "one", "two", "three", "four"]
PLAN = ["color"] * 4 + ["shape"] * 4 + ["letter"] * 2 + ["size", "where", "beside", "above"]
PLAN += ["count", "sign", "tiles"]
_CLEAR = 12
"""Pixels by which a position must be decided; closer calls are marked unclear."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question of one scene."""

    kind: str
    text: str
    answer: str
    salience: str = ""
    """`salient` or `faint`, for a question about one thing."""
    about: tuple[int, ...] = ()
    """The values in `Scene.owner` of the things that the question names, in order; 0 for what is
    not in the scene."""
    clear: bool = True
    """False if two answers could be defended; such a question is not scored."""


def _attribute(kind: str, thing: Thing) -> tuple[str, str]:
    if kind == "shape":
        return f"what shape is the {thing.color} object?", thing.shape
    if kind == "letter":
        return f"what letter is on the {thing.shape}?", thing.letter
    if kind == "size":
        return f"what size is the {thing.shape}?", thing.size
    return f"what color is the {thing.shape}?", thing.color


def _about(kind: str, scene: Scene, which: int) -> Question:
    thing, about = scene.things[which], (which + 1,)
    salience = "faint" if thing.faint else "salient"
    if kind == "letter" and not thing.letter:
        text = f"what letter is on the {thing.shape}?"
        return Question(kind, text, LETTERS[0], salience, about, clear=False)
    if kind != "where":
        text, answer = _attribute(kind, thing)
        return Question(kind, text, answer, salience, about)
    height, width, _ = scene.pixels.shape
    right, below = np.subtract(thing.center, (width / 2, height / 2))
    answer = f"{'top' if below < 0 else 'bottom'} {'left' if right < 0 else 'right'}"
    clear = min(abs(right), abs(below)) > _CLEAR
    return Question(kind, f"where is the {thing.shape}?", answer, salience, about, clear)


def _relation(kind: str, scene: Scene, random: np.random.Generator) -> Question:
    i, j = (int(place) for place in random.choice(len(scene.things), 2, replace=False))
    first, second, about = scene.things[i], scene.things[j], (i + 1, j + 1)
    dx, dy = np.subtract(first.center, second.center)
    if kind == "beside":
        text = f"is the {first.shape} left or right of the {second.shape}?"
        return Question(kind, text, "left" if dx < 0 else "right", "", about, abs(dx) > _CLEAR)
    text = f"is the {first.shape} above or below the {second.shape}?"
    return Question(kind, text, "above" if dy < 0 else "below", "", about, abs(dy) > _CLEAR)


def _count(scene: Scene, random: np.random.Generator) -> Question:
    """Ask to count the copies or, three times in ten, a random shape."""
    shape = scene.copies[0].shape
    if random.random() < 0.3:
        shape = str(random.choice(list(SHAPES)))
    shapes = [thing.shape for thing in scene.things + scene.copies]
    number = shapes.count(shape)
    about = min(shapes.index(shape), 5) + 1 if number else 0
    text = f"how many {shape} shapes are there?"
    return Question("count", text, NUMBERS[number], about=(about,))


def _sign(scene: Scene) -> Question:
    text = "what does the sign say?"
    if not scene.sign:
        return Question("sign", text, " ".join(LETTERS[:3]), about=(0,), clear=False)
    return Question("sign", text, " ".join(scene.sign), about=(8,))


def ask(scene: Scene, *seed: int) -> list[Question]:
    """Return one question for every entry of `PLAN`; no two of a kind are about the same thing."""
    random = np.random.default_rng(seed)
    left: dict[str, list[int]] = {}
    questions = []
    for kind in PLAN:
        if kind in ("color", "shape", "letter", "size", "where"):
            if not left.get(kind):
                left[kind] = random.permutation(len(scene.things)).tolist()
            questions.append(_about(kind, scene, left[kind].pop()))
        elif kind in ("beside", "above"):
            questions.append(_relation(kind, scene, random))
        elif kind == "count":
            questions.append(_count(scene, random))
        elif kind == "sign":
            questions.append(_sign(scene))
        else:
            text = "what color are the tiles?"
            questions.append(Question(kind, text, scene.tile_color, about=(7,)))
    return questions
