"""What a new number of tokens makes Triton compile: at most one kernel a size class.

A compilation takes seconds, inside a request and with all others waiting. Each operator is launched
at every N of `SIZES` and a sweep of k, as the methods do, on a GPU that is not there; what Triton
would compile is counted, not compiled.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from absent_gpu import absent_gpu
from vtprune_kernels._triton import size_class
from vtprune_kernels.spec import all_specs

SIZES = (64, 144, 256, 576, 1024, 2880)
COUNTS = (*range(1, 17), *range(17, 128, 5), 128, *range(129, 640, 37), 640)
IMAGES, WIDTH, HEADS, WORDS = 3, 1024, 16, (1, 5, 16, 40)
CLASSES = {size_class(n) for n in SIZES}
LAUNCHERS = {spec.name: spec.launcher for spec in all_specs()}
Keys = dict[str, set[str]]


@pytest.fixture
def keys() -> Iterator[Keys]:
    """Collect the keys under which Triton would keep a kernel, by the kernel's name."""
    from triton.runtime.jit import JITFunction

    found: Keys = defaultdict(set)
    run = JITFunction.run

    def warm_up(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        run(self, *args, grid=grid, warmup=True, **kwargs)

    def note(self: Any, key: str, *rest: Any) -> None:
        found[self.__name__].add(key)

    with absent_gpu("sm_90", device=-1) as patch:
        patch.setattr(JITFunction, "run", warm_up)
        patch.setattr(JITFunction, "_do_compile", note)
        yield found


def _meta(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _attention(n: int) -> dict[str, Any]:
    query, key, _ = _meta(IMAGES, n, 3 * WIDTH).chunk(3, dim=-1)
    return {"query": query, "key": key, "num_heads": HEADS, "scale": 0.125}


def _relevance(n: int, words: int) -> dict[str, Any]:
    bounds = {name: _meta(IMAGES + 1, dtype=torch.int64) for name in ("visual", "text")}
    return {
        "visual": _meta(IMAGES * n, 4 * WIDTH),
        "text": _meta(IMAGES * words, 4 * WIDTH),
        **{f"{name}_bounds": bound for name, bound in bounds.items()},
        "max_visual": n,
        "max_text": words,
    }


def _gathered(n: int, k: int) -> dict[str, Any]:
    rows = _meta(IMAGES, 1 + n, WIDTH)[:, 1:]
    kept = _meta(IMAGES, k, dtype=torch.int64)
    return {"tensors": [rows], "kept": kept, "out": [_meta(IMAGES, k, WIDTH)]}


def _picked(n: int, k: int) -> dict[str, Any]:
    order = _meta(IMAGES, n, dtype=torch.int64)
    places = _meta(IMAGES, k - k // 2, dtype=torch.int64)
    return {"order": order, "first": k // 2, "places": places, "keep": k}


def _gram(n: int) -> torch.Tensor:
    return _meta(IMAGES, n, n, dtype=torch.float32)


def _greedy(objective: str) -> Callable[[int, int], dict[str, Any]]:
    return lambda n, k: {
        "gram": _gram(n),
        "keep": k,
        "objective": objective,
        "weight": _meta(IMAGES, n, dtype=torch.float32),
    }


CASES: dict[str, tuple[Callable[[int, int], dict[str, Any]], dict[str, int]]] = {
    "cls_importance": (
        lambda n, k: _attention(1 + n),
        {"_cls_logits_kernel": 1, "_cls_mean_kernel": 1},
    ),
    "column_importance": (
        lambda n, k: _attention(n),
        {"lse_kernel": 1, "received_kernel": 1, "_column_mean_kernel": 1},
    ),
    "top_k_sorted": (
        lambda n, k: {"scores": _meta(IMAGES, n, dtype=torch.float32), "k": k},
        {"_top_k_sorted_kernel": len(CLASSES)},
    ),
    "relative_scores": (
        lambda n, k: {"scores": _meta(IMAGES, n, dtype=torch.float32)},
        {"_relative_scores_kernel": 1},
    ),
    "ranked": (
        lambda n, k: {"scores": _meta(IMAGES, n, dtype=torch.float32)},
        {"_ranked_kernel": 1},
    ),
    "picked_sorted": (_picked, {"_picked_sorted_kernel": 1}),
    "gather_rows": (_gathered, {"_gather_rows_kernel": 1}),
    # VisPruner's pool: all but half of what is kept.
    "cosine_gram": (
        lambda n, k: {
            "features": _meta(IMAGES, 1 + n, WIDTH)[:, 1:],
            "rows": _meta(IMAGES, n - k // 2, dtype=torch.int64),
        },
        {"_limbs_kernel": 1, "_gram_kernel": 1},
    ),
    "dedup": (
        lambda n, k: {"gram": _gram(n - k // 2), "keep": k - k // 2},
        {
            "_nearest_kernel": len(
                {size_class(n - k // 2) for n in SIZES for k in COUNTS if k < n}
            ),
            "_dedup_kernel": 1,
        },
    ),
    "row_max_cosine": (
        lambda n, k: {"features": _meta(IMAGES, n, WIDTH), "targets": _meta(IMAGES, k, WIDTH)},
        {"_limbs_kernel": 1, "_row_max_cosine_kernel": 1},
    ),
    "text_relevance": (
        lambda n, k: _relevance(n, WORDS[k % len(WORDS)]),
        {"_text_logits_kernel": 1, "_text_max_kernel": 1},
    ),
    **{
        f"greedy_select-{objective}": (_greedy(objective), dict.fromkeys(kernels, len(CLASSES)))
        for objectives, kernels in (
            (("max-min", "dpp"), ["_greedy_select_kernel"]),
            (("coverage",), ["first_gains_kernel", "lazy_cover_kernel"]),
        )
        for objective in objectives
    },
    # More than 1,024 rows are one class, whatever their number.
    "greedy_select-demand": (
        _greedy("demand"),
        {
            "first_gains_kernel": len(CLASSES),
            "lazy_cover_kernel": len(CLASSES) - 1,
            "next_gains_kernel": 1,
            "exact_cover_kernel": 1,
        },
    ),
}


def test_every_operator_is_swept() -> None:
    assert {case.split("-")[0] for case in CASES} == set(LAUNCHERS)


@pytest.mark.parametrize("case", CASES)
def test_only_a_new_size_class_compiles(case: str, keys: Keys) -> None:
    make, classes = CASES[case]
    for n in SIZES:
        for k in COUNTS:
            if k < n:
                LAUNCHERS[case.split("-")[0]](**make(n, k))
    found = {kernel: len(compiled) for kernel, compiled in keys.items()}
    assert found == classes, "kernels compiled for this sweep, beside one a size class"


def test_where_indices_begin_in_memory_compiles_nothing(keys: Keys) -> None:
    """A second image's begin off a multiple of 16 bytes where their number is odd."""
    features, k, n = _meta(IMAGES, 576, WIDTH), 33, 540
    for skipped in range(3):
        kept = _meta(IMAGES + skipped, k, dtype=torch.int64)[skipped:]
        gathered = _meta(IMAGES, k, WIDTH)
        LAUNCHERS["gather_rows"](tensors=[features], kept=kept, out=[gathered])
        pool = _meta(IMAGES, skipped + n, dtype=torch.int64)[:, skipped:]
        LAUNCHERS["cosine_gram"](features, pool)
        LAUNCHERS["picked_sorted"](pool, 3, kept, 36)
    assert set(map(len, keys.values())) == {1}, keys.keys()


def test_what_is_counted_is_what_triton_would_compile(keys: Keys) -> None:
    """A type that Triton does distinguish is counted, or the sweep would prove nothing."""
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        LAUNCHERS["top_k_sorted"](_meta(IMAGES, 576, dtype=dtype), 64)
    assert len(keys["_top_k_sorted_kernel"]) == 3
