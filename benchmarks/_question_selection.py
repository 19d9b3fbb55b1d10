"""Compare the time of `adafv`, which reads the question, with the tower's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from _clip_tower import HEADS, PATCHES, WIDTH, ClipTower
from _clock import Clock
from torch import nn
from vtprune_kernels import cls_importance, gather_rows

from vllm_pruner import methods
from vllm_pruner.methods.base import VisualTokens

__all__ = ["HEADER", "compare_question", "summary"]

KEEP, QUESTION, DECODER = 64, 40, 4096
SCALE = (WIDTH // HEADS) ** -0.5
MOST_OF_TOWER = 0.15
HEADER = "| images | dtype | tower | adafv | of tower | vispruner | projecting all, not 64 |"


@torch.inference_mode()
def compare_question(images: int, dtype: str, rounds: int) -> list[dict[str, Any]]:
    """Time each part, print the table's row and return it."""
    found = _measure(images, getattr(torch, dtype), rounds)
    share = found["selection"] / found["tower"]
    more = found["project_all"] - found["project_kept"]
    print(
        f"| {images} | {dtype} | {found['tower']:.0f} ms | {found['selection']:.1f} ms "
        f"| {share:.2%} | {found['vispruner']:.1f} ms | {more:.1f} ms |",
        flush=True,
    )
    about = {"images": images, "dtype": dtype, "kept": f"{KEEP} of {PATCHES}"}
    shares = {"question_tokens": QUESTION, "selection_of_tower": round(share, 4)}
    figures = {f"{name}_ms": round(value, 2) for name, value in found.items()}
    return [{**about, **shares, **figures}]


def summary(rows: list[dict[str, Any]]) -> str:
    """Return a sentence that compares the result with the target."""
    most = max(row["selection_of_tower"] for row in rows)
    return f"selection is at most {most:.2%} of the tower (target {MOST_OF_TOWER:.0%})"


def _measure(images: int, dtype: torch.dtype, rounds: int) -> dict[str, float]:
    """Return median milliseconds of each part; the parts take turns in every round."""
    tower, pixels = ClipTower().to(dtype), torch.randn(images, 3, 336, 336).to(dtype)
    projector = nn.Sequential(nn.Linear(WIDTH, DECODER), nn.GELU(), nn.Linear(DECODER, DECODER))
    projector.to(dtype)
    text = [torch.randn(QUESTION, DECODER).to(dtype) for _ in range(images)]
    features, query, key = tower(pixels)
    patches = features[:, 1:]
    projected = projector(patches)
    adafv, vispruner = methods.get("adafv"), methods.get("vispruner")

    def select() -> torch.Tensor:
        tokens = VisualTokens(patches, cls_importance(query, key, HEADS, SCALE), projected, text)
        return gather_rows([projected], adafv.select(tokens, KEEP, adafv.options()))[0]

    def select_blind() -> torch.Tensor:
        tokens = VisualTokens(patches, cls_importance(query, key, HEADS, SCALE))
        return gather_rows([patches], vispruner.select(tokens, KEEP, vispruner.options()))[0]

    parts: dict[str, Callable[[], Any]] = {
        "tower": lambda: tower(pixels),
        "selection": select,
        "vispruner": select_blind,
        "project_all": lambda: projector(patches),
        "project_kept": lambda: projector(patches[:, :KEEP]),
    }
    return _medians(parts, rounds)


def _medians(parts: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    clock = Clock()
    for turn in range(rounds + 1):
        timed = clock if turn else Clock()  # the first turn warms up
        for name, part in parts.items():
            for _ in range(1 if name == "tower" else 3):
                with timed.step(name):
                    part()
    return {name: clock.median(name) for name in parts}
