"""The servers that `gpu.py` measures, by the stage that asks them."""

from __future__ import annotations

from pathlib import Path

from _gpu_fleet import Wanted

__all__ = ["server_groups"]

_DEMO = str(Path(__file__).resolve().parents[1] / "demo" / "llava")
_PRUNE = ("--plugin", "vtprune")
_TOKENS = (*_PRUNE, "--prune-tokens", "64")
_GRAPHS = ("--compilation-config", '{"cudagraph_mm_encoder": true}')


def server_groups(on_gpu: bool) -> dict[str, list[Wanted]]:
    """Return the servers by stage, stock first; tiny ones without a GPU."""
    seats = ("--max-num-seqs", "64") if on_gpu else ("--dtype", "float32")
    four = (*seats, "--api-server-count", "4") if on_gpu else seats
    llava, following = ("llava-7b", "llava-next-7b") if on_gpu else ("demo", "demo-next")
    return {
        "llava": _pair("llava", llava, 22.0, seats, _TOKENS),
        "next": _pair("next", following, 12.0, seats, _PRUNE),
        "apis": _pair("apis", llava, 22.0, four, _TOKENS),
        "qwen": _qwens(seats, on_gpu),
        "demo": [_demo(on_gpu)],
    }


def _pair(
    stage: str, model: str, kv_gb: float, common: tuple[str, ...], pruned: tuple[str, ...]
) -> list[Wanted]:
    return [
        Wanted(f"{stage} stock", model, common, 17.0, kv_gb),
        Wanted(f"{stage} vtprune", model, (*common, *pruned), 17.0, kv_gb),
    ]


def _qwens(seats: tuple[str, ...], on_gpu: bool) -> list[Wanted]:
    if not on_gpu:  # a CPU has no graphs
        return _pair("qwen", "demo-qwen2.5", 2.0, seats, _PRUNE)
    # FlashAttention may lack the heads of size 80 of Qwen's tower; TORCH_SDPA cannot be captured.
    common = (*seats, "--mm-encoder-attn-backend", "TRITON_ATTN")
    graphs = Wanted("qwen graphs", "qwen2.5-vl-7b", (*common, *_PRUNE, *_GRAPHS), 17.0, 2.0)
    return [*_pair("qwen", "qwen2.5-vl-7b", 2.0, common, _PRUNE), graphs]


def _demo(on_gpu: bool) -> Wanted:
    flags: tuple[str, ...] = (*_PRUNE, "--dtype", "float32")
    if on_gpu:  # FlashAttention has no float32 heads of size 32
        flags += ("--attention-backend", "TRITON_ATTN", "--mm-encoder-attn-backend", "TORCH_SDPA")
        flags += ("--enforce-eager",)
    return Wanted("demo", _DEMO, flags, 3.0, 1.0)
