"""What vLLM has for GPUs alone in some towers, as Triton kernels, in torch: for a CPU, and for
stock vLLM too."""

from __future__ import annotations

import sys
from importlib import import_module

import torch
from any_rows import multiply_any_rows
from narrow_towers import narrow_deepseek_ocr
from no_capture import capture_nothing
from vllm.model_executor.layers.rotary_embedding import mrope, mrope_vit_setup
from vllm.models.common.ops import fused_qk_rmsnorm
from vllm.utils.torch_utils import async_tensor_h2d

from vllm_pruner.compat.versions import at_least

__all__ = ["run_tower_kernels_on_a_cpu"]


def _normed(
    queries: torch.Tensor,
    keys: torch.Tensor,
    to_queries: torch.Tensor,
    to_keys: torch.Tensor,
    of_queries: torch.Tensor,
    of_keys: torch.Tensor,
    eps: float,
) -> None:
    """GLM-5-Next's: write rows divided by the root of their mean square, times a weight."""
    for rows, to, weight in ((queries, to_queries, of_queries), (keys, to_keys, of_keys)):
        exact = rows.float()
        scale = (exact.square().mean(dim=-1, keepdim=True) + eps).rsqrt()
        to.copy_(exact * scale * weight.float())


def _angles(
    of_time: torch.Tensor,
    of_rows: torch.Tensor,
    of_columns: torch.Tensor,
    grids: list[list[int]],
    merge: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """MiniMax-M3's: return cosines and sines `[3, patches, columns]` for the time, row and column
    of each patch, of which a plane's are read in the columns of its axis."""
    found = []
    for frames, rows, columns in grids:
        places = torch.cartesian_prod(*map(torch.arange, (frames, rows, columns)))
        squares = places.view(frames, rows // merge, merge, columns // merge, merge, 3)
        found.append(squares.transpose(2, 3).reshape(-1, 3))
    places = async_tensor_h2d(torch.cat(found).float(), device=of_time.device)
    axes = zip(places.unbind(dim=1), (of_time, of_rows, of_columns), strict=True)
    turns = torch.cat([torch.outer(place, speeds) for place, speeds in axes], dim=1)
    return turns.cos().repeat(3, 1, 1), turns.sin().repeat(3, 1, 1)


def _turned(
    queries: torch.Tensor,
    keys: torch.Tensor,
    cosines: torch.Tensor,
    sines: torch.Tensor,
    section: list[int],
    head_size: int,
    rotary_size: int,
    mrope_interleaved: bool,
    is_neox_style: bool,
) -> None:
    """MiniMax-M3's: turn the first columns of each head, in place."""
    assert is_neox_style and not mrope_interleaved
    cosine, sine = (
        torch.cat([plane[:, part] for plane, part in zip(each, _parts(section), strict=True)], 1)
        for each in (cosines, sines)
    )
    half = rotary_size // 2
    for rows in (queries, keys):
        heads = rows.view(len(rows), -1, head_size)
        first, second = heads[..., :half].float(), heads[..., half:rotary_size].float()
        heads[..., :half] = first * cosine[:, None] - second * sine[:, None]
        heads[..., half:rotary_size] = second * cosine[:, None] + first * sine[:, None]


def _parts(section: list[int]) -> list[slice]:
    ends = [sum(section[: place + 1]) for place in range(len(section))]
    return [slice(end - size, end) for end, size in zip(ends, section, strict=True)]


def run_tower_kernels_on_a_cpu() -> None:
    """Put these in place of vLLM's. Safe to call again."""
    capture_nothing()
    multiply_any_rows()
    _have_deepseek_v4()
    narrow_deepseek_ocr()
    fused_qk_rmsnorm._FUSED_Q_KV_RMSNORM_KERNEL = _normed
    tower = sys.modules.get("vllm.models.minimax_m3.common.vision_tower")
    for module in (mrope, tower) if tower else (mrope,):
        module.triton_mrope = _turned
    if layer := getattr(mrope_vit_setup, "VitMropeSetup", None):  # vLLM 0.33
        layer.forward = lambda _, *given: _angles(*given)
        return
    for module in (mrope_vit_setup, tower) if tower else (mrope_vit_setup,):
        module.vit_mrope_setup = _angles


def _have_deepseek_v4() -> None:
    """Have vLLM's model of DeepSeek-V4 with vision be that for GPUs, which one for CPUs refuses."""
    if at_least((0, 32)):
        package = import_module("vllm.models.deepseek_v4")
        of_gpu = import_module("vllm.models.deepseek_v4.common.vl_model")
        name = "DeepseekV4ForConditionalGeneration"
        setattr(package, name, getattr(of_gpu, name))
