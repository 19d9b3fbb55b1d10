"""The built-in set: five questions per scene, about salient and faint things, counts, letters and
positions.

No files are needed. `synthetic` is drawn from seeds that training never uses; `synthetic-2` from
yet other seeds, for decisions that must not be made on the former; `synthetic-ragged` has pictures
of ten sizes (`ragged.py`), for a model that takes any resolution.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from PIL import Image

from vtprune_evaluate.item import Dataset, Item, mean_score
from vtprune_evaluate.ragged import draw_ragged, enlarged, grid_of
from vtprune_evaluate.scene_questions import Question, ask
from vtprune_evaluate.scenes import Scene, draw_scene

__all__ = ["SYNTHETIC", "SYNTHETIC_2", "SYNTHETIC_RAGGED"]

GROUPS = ["salient", "faint", "counting", "reading", "position"]
DEFAULT_ITEMS = 1000
_KINDS = {"count": "counting", "sign": "reading"}
_KINDS |= dict.fromkeys(("where", "beside", "above"), "position")


def _group(question: Question) -> str:
    return _KINDS.get(question.kind) or question.salience


def _draw(ragged: bool, *seed: int) -> Scene:
    return draw_ragged(*seed, grid=grid_of(*seed)) if ragged else draw_scene(*seed)


@lru_cache(maxsize=1024)
def _png(ragged: bool, *seed: int) -> bytes:
    file, scene = io.BytesIO(), _draw(ragged, *seed)
    pixels = enlarged(scene, grid_of(*seed))[0] if ragged else scene.pixels
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _items(which: int, folder: Path | None, limit: int | None, *, ragged: bool) -> Iterator[Item]:
    """Yield one question of each group per scene, drawn from its clear ones, until each group has
    its share. Only every other scene has a sign to read, so reading needs more scenes."""
    total, scene_number = DEFAULT_ITEMS if limit is None else limit, 0
    left = {group: (total + i) // len(GROUPS) for i, group in enumerate(reversed(GROUPS))}
    while any(left.values()):
        seed = (which, scene_number)
        questions = [each for each in ask(_draw(ragged, *seed), *seed) if each.clear]
        lot = np.random.default_rng(seed)
        for group in GROUPS:
            mine = [question for question in questions if _group(question) == group]
            if mine and left[group]:
                chosen, left[group] = mine[int(lot.integers(len(mine)))], left[group] - 1
                key, image = f"{scene_number}-{group}", str(scene_number)
                load = partial(_png, ragged, *seed)
                yield Item(key, image, load, chosen.text, chosen.answer, group)
        scene_number += 1


def _score(answer: str, reference: str) -> float:
    return float(answer.split() == reference.split())


def _dataset(name: str, which: int, *, ragged: bool = False) -> Dataset:
    return Dataset(name, partial(_items, which, ragged=ragged), _score, mean_score, max_tokens=6)


SYNTHETIC = _dataset("synthetic", 4)
SYNTHETIC_2 = _dataset("synthetic-2", 5)
SYNTHETIC_RAGGED = _dataset("synthetic-ragged", 6, ragged=True)
