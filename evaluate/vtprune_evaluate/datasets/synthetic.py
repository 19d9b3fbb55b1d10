"""The built-in set: five questions a scene about what is salient, faint, counted, written, placed.

No files are needed. `synthetic` is drawn from seeds that training never uses; `synthetic-2` from
others again, for decisions that must not be made on the first.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from PIL import Image

from vtprune_evaluate.item import Dataset, Item, mean_score
from vtprune_evaluate.scene_questions import Question, ask
from vtprune_evaluate.scenes import draw_scene

__all__ = ["SYNTHETIC", "SYNTHETIC_2"]

GROUPS = ["salient", "faint", "counting", "reading", "position"]
DEFAULT_ITEMS = 1000
_KINDS = {"count": "counting", "sign": "reading"}
_KINDS |= dict.fromkeys(("where", "beside", "above"), "position")


def _group(question: Question) -> str:
    return _KINDS.get(question.kind) or question.salience


@lru_cache(maxsize=1024)
def _png(*seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(draw_scene(*seed).pixels).save(file, "PNG")
    return file.getvalue()


def _items(which: int, folder: Path | None, limit: int | None) -> Iterator[Item]:
    """One question of each group a scene, drawn by lot among its clear ones, until each group has
    its part. Only every other scene has something to read, so reading takes more scenes."""
    total, scene_number = DEFAULT_ITEMS if limit is None else limit, 0
    left = {group: (total + i) // len(GROUPS) for i, group in enumerate(reversed(GROUPS))}
    while any(left.values()):
        seed = (which, scene_number)
        questions = [question for question in ask(draw_scene(*seed), *seed) if question.clear]
        lot = np.random.default_rng(seed)
        for group in GROUPS:
            mine = [question for question in questions if _group(question) == group]
            if mine and left[group]:
                chosen, left[group] = mine[int(lot.integers(len(mine)))], left[group] - 1
                key, image = f"{scene_number}-{group}", str(scene_number)
                load = partial(_png, *seed)
                yield Item(key, image, load, chosen.text, chosen.answer, group)
        scene_number += 1


def _score(answer: str, reference: str) -> float:
    return float(answer.split() == reference.split())


SYNTHETIC = Dataset("synthetic", partial(_items, 4), _score, mean_score, max_tokens=6)
SYNTHETIC_2 = Dataset("synthetic-2", partial(_items, 5), _score, mean_score, max_tokens=6)
