"""What a pruning and a stock engine of one checkpoint answer; see `answer_record`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from forked import run
from vllm_process import MODELS, environment

__all__ = ["Answers", "answers_of"]


@dataclass(frozen=True)
class Answers:
    """What two engines of a checkpoint answered."""

    checkpoint: str
    pruned: dict[str, Any]
    stock: dict[str, Any]


def answers_of(checkpoint: str, image: str, folder: Path, *dtype: str) -> Answers:
    """Ask both, each in a process of its own.

    Args:
        checkpoint: a folder of `.cache/models`.
        image: what stands for an image in a prompt.
        folder: an empty one.
        dtype: if it is not float32.
    """
    results = []
    for kind in ("pruned", "stock"):
        file, script = folder / f"{kind}.pt", Path(__file__).with_name("answer_record.py")
        arguments = [str(script), str(MODELS / checkpoint), image, kind, str(file), *dtype]
        settings = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
        done = run(arguments, environment(**settings), folder, timeout=300)
        assert done.returncode == 0, done.stderr[-4000:]
        results.append(torch.load(file))
    return Answers(checkpoint, *results)
