"""A task of lmms-eval as a data set: its pictures, its prompts and its own scoring.

`--data` names it: a task that lmms-eval has (`pope`), or the YAML file of one; after a colon, the
metric that scores an answer, if it is not the task's first. Tasks about one image a question, whose
metric tells of a single answer how right it is, from 0 to 1.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from functools import cache, partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from vtprune_evaluate.item import Dataset, DatasetError, Item, mean_score, need

__all__ = ["LMMS_EVAL"]


def _items(name: Path | None, limit: int | None) -> Iterator[Item]:
    if name is None:
        raise DatasetError("lmms-eval needs a task: give --data pope or --data task.yaml")
    task = _task(str(name))
    limits = task.config.generation_kwargs or {}
    for number, line in enumerate(islice(_lines(str(name)), limit)):
        pixels = _picture(task, line).tobytes()
        yield Item(
            id=f"{task.task_name}-{number}",
            image=hashlib.blake2b(pixels, digest_size=8).hexdigest(),
            load=partial(_png, str(name), number),
            prompt=str(task.doc_to_text(line)),
            reference=[str(name), number],
            max_tokens=limits.get("max_new_tokens"),
        )


@cache
def _task(name: str) -> Any:
    """Load a task, without its metric's name."""
    if find_spec("lmms_eval") is None:
        raise DatasetError("lmms-eval is not installed: pip install lmms-eval, or --dataset own")
    from lmms_eval.tasks import TaskManager

    text = name.partition(":")[0]
    if not text.endswith((".yaml", ".yml")):
        return _loaded(TaskManager(), text)
    file = need(Path(text)).resolve()
    manager = TaskManager(include_path=str(file.parent), include_defaults=False)
    found = [task for task, entry in manager.task_index.items() if _is_from(file, entry)]
    if len(found) != 1:
        raise DatasetError(f"{file} describes {len(found)} tasks of lmms-eval; allowed: one")
    return _loaded(manager, found[0])


@cache
def _lines(name: str) -> Any:
    """The task's data, as it prepares them."""
    return _task(name).eval_docs


def _is_from(file: Path, entry: dict[str, Any]) -> bool:
    return entry["type"] == "task" and Path(entry["yaml_path"]).resolve() == file


def _loaded(manager: Any, name: str) -> Any:
    if name not in manager.all_subtasks:
        raise DatasetError(f"{name} is no task of lmms-eval; allowed: a name of `lmms-eval tasks`")
    return manager.load_task_or_group([name])[name]


def _picture(task: Any, line: Any) -> Any:
    """The picture of a line of the task's data."""
    pictures = task.doc_to_visual(line)
    if len(pictures) != 1 or not hasattr(pictures[0], "save"):
        raise DatasetError(
            f"{task.task_name} asks about {len(pictures)} images or videos; allowed: one image"
        )
    return pictures[0].convert("RGB")


def _png(name: str, number: int) -> bytes:
    file = io.BytesIO()
    _picture(_task(name), _lines(name)[number]).save(file, "PNG")
    return file.getvalue()


def _score(answer: str, reference: tuple[str, int]) -> float:
    """What the task's metric makes of one answer, behind the task's own filters."""
    name, number = reference
    task = _task(name)
    line = _lines(name)[number]
    answers = [[answer]]
    for each in task._filters[0].filters:
        answers = each.apply(answers, [line])
    found = task.process_results(line, [*answers])
    metric = name.partition(":")[2] or next(iter(task.aggregation()))
    if metric not in found:
        raise DatasetError(f"{metric} is no metric of {name}; allowed: {', '.join(found)}")
    score = task.aggregation()[metric]([found[metric]])
    if not isinstance(score, int | float) or not 0 <= score <= 1:
        raise DatasetError(
            f"{metric} of {name} is {score!r} for one answer; allowed: 0 to 1, as another metric's "
            f"({', '.join(found)}) may be: --data {name.partition(':')[0]}:METRIC"
        )
    return float(score)


LMMS_EVAL = Dataset("lmms-eval", _items, _score, mean_score)
"""Whichever task `--data` names."""
