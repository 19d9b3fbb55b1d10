"""What the hot path launches: copies that do not wait, and no more of them for more images."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import vllm_pruner
from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.methods.on_device import on_device, sent
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.worker.batches import Group
from vllm_pruner.worker.feature_cache import FeatureCache

CPU = torch.device("cpu")
HOT = ("methods", "worker", "layout")
COLD = {
    "methods/on_device.py": "the one place",
    "worker/explain.py": "shows a selection to a person",
    "layout/unpruned_prompt.py": "counts positions on the host",
    "worker/mrope.py": "the host's token ids, looked at there",
    "worker/unpruned.py": "the same",
    "worker/canvas.py": "sizes of slices that stay on the host: positions are counted there",
    "worker/omni_tower.py": "grids that stay on the host: vLLM's tower reads them there",
    "worker/ernie_tower.py": "the same of grids of frames",
    "worker/siglip2_tower.py": "the same of sizes",
    "worker/resampler_tower.py": "the same: vLLM's resampler copies them itself, pinned",
}


class _Launched(TorchDispatchMode):
    """Counts operators by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def _from_the_host(source: str) -> list[str]:
    """Calls that make a tensor of what the host has, or copy without saying what kind of memory."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    made = {"torch.tensor", "torch.as_tensor", "torch.from_numpy"}
    return [
        ast.unparse(call)
        for call in calls
        if ast.unparse(call.func) in made
        or any(keyword.arg == "non_blocking" for keyword in call.keywords)
    ]


def test_nothing_on_the_hot_path_copies_pageable_memory() -> None:
    root = Path(vllm_pruner.__file__).parent
    files = {
        str(path.relative_to(root)): path.read_text()
        for folder in HOT
        for path in (root / folder).rglob("*.py")
    }
    found = {name: calls for name, text in files.items() if (calls := _from_the_host(text))}
    assert set(found) <= set(COLD), found
    assert _from_the_host("torch.tensor(ends).to(device, non_blocking=True)")


@pytest.mark.parametrize("values", [[], [3, 1], [[True], [False]]])
def test_what_is_sent_arrives(values: Any) -> None:
    dtype = torch.bool if values and isinstance(values[0], list) else torch.int64
    assert on_device(values, CPU, dtype).tolist() == values
    assert on_device(values, torch.device("meta"), dtype).device.type == "meta"
    here = torch.tensor(values, dtype=dtype)
    assert sent(here, CPU).tolist() == values
    assert sent(here, torch.device("meta")).device.type == "meta"


def _launched(images: int, new: int, page: int = 4, rows: int = 6) -> Counter[str]:
    """What one fetch launches of `images` images, the last `new` of which are not cached."""
    columns = {"features": (3, torch.bfloat16), "importance": (0, torch.float32)}
    cache = FeatureCache(1 << 16, page, columns, CPU)

    def encode(places: list[int]) -> dict[str, torch.Tensor]:
        total = len(places) * rows
        return {"features": torch.ones(total, 3).bfloat16(), "importance": torch.ones(total)}

    names = [f"image {number}" for number in range(images)]
    known = names[: images - new]
    if known:
        cache.fetch(known, [rows] * len(known), encode)
    with _Launched() as launched:
        cache.fetch(names, [rows] * images, encode)
    assert cache.misses == images
    return launched.counts


@pytest.mark.parametrize("new", [0, 3, "all"])
def test_the_feature_cache_moves_all_rows_at_once(new: Any) -> None:
    few, many = (_launched(images, images if new == "all" else new) for images in (5, 40))
    moving = ("index_select", "index_copy_", "cat", "copy_", "_to_copy", "lift_fresh", "mul", "add")
    assert [few[name] for name in moving] == [many[name] for name in moving]
    assert many["index_select"] in (0, 2), "one a column"
    assert many["index_copy_"] in (0, 2)
    assert many["lift_fresh"] <= 3


def test_a_group_begins_where_an_allocation_could() -> None:
    """Triton compiles for addresses that are no multiple of sixteen bytes once more."""
    scores = torch.arange(64, dtype=torch.float32)
    config = PruneConfig()
    for start, is_view in ((0, True), (4, True), (5, False), (6, False), (8, True)):
        group = Group(GridLayout(3, 3), config, 1, 9, starts=[start, start + 9], places=[0, 1])
        part = group.of(scores)
        assert part.tolist() == scores[start : start + 18].view(2, 9).tolist()
        assert (part.untyped_storage().data_ptr() == scores.data_ptr()) == is_view
        assert part.data_ptr() % 16 == 0
