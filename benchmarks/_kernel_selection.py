"""Time the whole selection, from the tower's last layer to the projector."""

from __future__ import annotations

from collections.abc import Callable

import literal_vispruner
import torch
from _clip_tower import HEADS, WIDTH, ClipTower
from _kernel_cases import STEP
from _record import graph_of, time_interleaved
from vtprune_kernels import (
    cls_importance,
    cosine_gram,
    dedup,
    gather_rows,
    picked_sorted,
    ranked,
)
from vtprune_kernels.spec import all_specs

__all__ = ["measure_selection"]

KEEP, IMPORTANT = 64, 32
SCALE = (WIDTH // HEADS) ** -0.5
SPECS = {spec.name: spec for spec in all_specs()}


def measure_selection(
    device: torch.device, images: int, rounds: int
) -> dict[str, tuple[float, float, float]]:
    """Verify the selection of 64 of 576 tokens, then time it: with kernels, as a CUDA graph, in
    eager torch, and as the literal published routine; and the tower. Without a GPU there is no
    graph.

    Returns:
        Median, 20 % and 80 % quantile in microseconds, by contender.

    Raises:
        SystemExit: importance is off by more than its tolerance; or kernels and references select
            other tokens from the same importance. (From its own importance a reference may select
            others: it may order two tokens 5e-10 apart differently.)
    """
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32  # CPUs without AVX-512
    tower = ClipTower().to(device, dtype)
    pixels = torch.randn(images, 3, 336, 336, device=device, dtype=dtype)
    tokens, query, key = tower(pixels)
    rows = tokens[:, 1:]
    importance = cls_importance(query, key, HEADS, SCALE)
    _check_importance(importance, query, key)
    wanted = _choose(rows, importance, reference=True)
    contenders: dict[str, Callable[[], object]] = {
        "kernel": lambda: _select(rows, query, key),
        "eager": lambda: _select(rows, query, key, reference=True),
        "literal": lambda: _literal(rows, query, key),
        "tower": lambda: tower(pixels),
    }
    if not torch.equal(_select(rows, query, key), wanted):
        raise SystemExit("selection differs from the references: nothing is timed")
    if device.type == "cuda":
        _show_that_nothing_waits(rows, query, key, wanted)
        contenders["graph"] = graph_of(contenders["kernel"])
    return time_interleaved(contenders, rounds, device)


def _select(
    rows: torch.Tensor, query: torch.Tensor, key: torch.Tensor, reference: bool = False
) -> torch.Tensor:
    """Select as the plugin does; return the kept rows `[images, KEEP, WIDTH]` for the projector."""
    score = SPECS["cls_importance"].reference if reference else cls_importance
    return _choose(rows, score(query, key, HEADS, SCALE), reference)


def _choose(rows: torch.Tensor, importance: torch.Tensor, reference: bool = False) -> torch.Tensor:
    """Select given the importance; from here on, results are exact."""
    rank, gram, remove, pick = ranked, cosine_gram, dedup, picked_sorted
    if reference:
        rank, gram, remove, pick = (
            SPECS[each.__name__].reference for each in (rank, gram, remove, pick)
        )
    order = rank(importance)
    diverse = remove(gram(rows, order[:, IMPORTANT:]), KEEP - IMPORTANT, STEP)
    return gather_rows([rows], pick(order, IMPORTANT, diverse, KEEP))[0]


def _check_importance(importance: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> None:
    spec = SPECS["cls_importance"]
    apart = (importance - spec.reference(query, key, HEADS, SCALE)).abs().max().item()
    if not apart <= spec.tolerance[query.dtype]:
        raise SystemExit(f"importance differs by {apart}: nothing is timed")


def _literal(rows: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Run the published routine for the same steps."""
    kept = literal_vispruner.select(
        rows, literal_vispruner.importance(query, key, HEADS, SCALE), KEEP
    )
    return rows[torch.arange(len(kept), device=kept.device).unsqueeze(1), kept]


def _show_that_nothing_waits(
    rows: torch.Tensor, query: torch.Tensor, key: torch.Tensor, wanted: torch.Tensor
) -> None:
    """Run selection and projector while host syncs raise, and capture them in a CUDA graph."""
    projector = torch.nn.Linear(WIDTH, 4096, device=rows.device, dtype=rows.dtype)

    def to_projector() -> torch.Tensor:
        kept = _select(rows, query, key)
        projector(kept)
        return kept

    to_projector()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    to_projector()
    torch.cuda.set_sync_debug_mode("default")
    if not torch.equal(graph_of(to_projector)(), wanted):
        raise SystemExit("the captured selection differs: nothing is timed")
