"""The servers that `gpu.py` measures, by the stage that asks them."""

from __future__ import annotations

import json
from pathlib import Path

from _gpu_fleet import Wanted

__all__ = ["server_groups"]

_DEMO = str(Path(__file__).resolve().parents[1] / "demo" / "llava")
_PRUNE = ("--plugin", "vtprune")
_GRAPHS = ("--compilation-config", '{"cudagraph_mm_encoder": true}')


def server_groups(on_gpu: bool) -> dict[str, list[Wanted]]:
    """Return the servers by stage, stock first; tiny ones without a GPU. What no card has run yet
    comes first, in case the time does not last."""
    seats = ("--max-num-seqs", "64") if on_gpu else ("--dtype", "float32")
    four = (*seats, "--api-server-count", "4") if on_gpu else seats
    tokens = (*_only("scope"), "--prune-tokens", "64")
    llava, following = ("llava-7b", "llava-next-7b") if on_gpu else ("demo", "demo-next")
    return {
        "demo": [_demo(on_gpu)],
        "llava": _pair("llava", llava, 22.0, seats, tokens),
        "qwen": _qwens(seats, on_gpu),
        "next": _pair("next", following, 12.0, seats, _only("scope")),
        "apis": _pair("apis", llava, 22.0, four, tokens),
    }


def _only(method: str) -> tuple[str, ...]:
    """Return the flags of a server that prunes by one method, and so compiles the kernels of no
    other at start: there is no cache yet, and images of any size take one of each power of two."""
    limits = json.dumps({"methods": [method]})
    return (*_PRUNE, "--prune-method", method, "--prune-limits", limits)


def _pair(
    stage: str, model: str, kv_gb: float, common: tuple[str, ...], pruned: tuple[str, ...]
) -> list[Wanted]:
    return [
        Wanted(f"{stage} stock", model, common, 17.0, kv_gb),
        Wanted(f"{stage} vtprune", model, (*common, *pruned), 17.0, kv_gb),
    ]


def _qwens(seats: tuple[str, ...], on_gpu: bool) -> list[Wanted]:
    pruned = _only("vispruner")
    if not on_gpu:  # a CPU has no graphs
        return _pair("qwen", "demo-qwen2.5", 2.0, seats, pruned)
    # FlashAttention may lack the heads of size 80 of Qwen's tower; TORCH_SDPA cannot be captured.
    common = (*seats, "--mm-encoder-attn-backend", "TRITON_ATTN")
    graphs = Wanted("qwen graphs", "qwen2.5-vl-7b", (*common, *pruned, *_GRAPHS), 17.0, 2.0)
    return [*_pair("qwen", "qwen2.5-vl-7b", 2.0, common, pruned), graphs]


def _demo(on_gpu: bool) -> Wanted:
    flags: tuple[str, ...] = (*_PRUNE, "--dtype", "float32")
    if on_gpu:  # FlashAttention has no float32 heads of size 32
        flags += ("--attention-backend", "TRITON_ATTN", "--mm-encoder-attn-backend", "TORCH_SDPA")
        flags += ("--enforce-eager",)
    return Wanted("demo", _DEMO, flags, 1.5, 0.5)
