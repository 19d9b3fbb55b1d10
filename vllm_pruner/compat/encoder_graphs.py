"""Hand vLLM's CUDA graphs of a vision tower to the model.

Replaces: `EncoderCudaGraphManager.capture` and `clear`, which then also call `graphs_captured` and
`graphs_cleared` of a model that has them, and capture the model's `manager_beside`.
Why: a runner with such a manager calls it instead of `embed_multimodal`, which would bypass the
feature cache, the selection and the positions of kept tokens. Our models name no modality to the
manager, so the runner calls `embed_multimodal`, and they replay the graphs in place of the tower
themselves. For that they need the graphs, which vLLM does not pass to a model. A runner has one
manager; what is not pruned needs vLLM's own graphs beside ours.
Relies on: both runners creating the model's manager when `cudagraph_mm_encoder` is set, including
its memory in the profile, and capturing it with the decoder; the manager calling the model's
`SupportsEncoderCudaGraph`, and `execute` falling back to its eager function for batches larger than
every budget.
vLLM versions: 0.32 and 0.33; 0.31 has another protocol and is served without these graphs.
Goes when: vLLM passes a model its graphs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, NamedTuple

from vllm_pruner.compat.patching import Patch, apply
from vllm_pruner.compat.versions import at_least

if TYPE_CHECKING:
    import torch
    from vllm.config import VllmConfig
    from vllm.v1.worker.encoder_cudagraph import EncoderCudaGraphManager

__all__ = [
    "CapturedGraph",
    "captured_graphs",
    "encoder_graphs_known",
    "manager_of",
    "on_cuda",
    "on_rocm",
    "set_graph_budgets",
    "tell_of_encoder_graphs",
]

logger = logging.getLogger("vllm.vtprune")


def encoder_graphs_known() -> bool:
    """Whether this vLLM has the protocol that this module follows."""
    return at_least((0, 32))


def on_cuda() -> bool:
    """Whether vLLM serves on an NVIDIA GPU. Does not initialise it."""
    from vllm.platforms import current_platform

    return current_platform.is_cuda()


def on_rocm() -> bool:
    """Whether vLLM serves on an AMD GPU. Does not initialise it."""
    from vllm.platforms import current_platform

    return current_platform.is_rocm()


def set_graph_budgets(vllm_config: VllmConfig, budgets: Sequence[int]) -> list[int]:
    """Set the batch sizes to capture, in tokens, unless the operator did; return the operator's.

    vLLM's default, powers of two, would pad nine crops to sixteen. With the operator's number of
    items, vLLM leaves out sizes below it if they are its own, and does not start if they were
    given, so they are left out here. Call it before a runner creates its manager.
    """
    compilation = vllm_config.compilation_config
    named = list(compilation.encoder_cudagraph_token_budgets or ())
    items = compilation.encoder_cudagraph_max_vision_items_per_batch
    ours = [budget for budget in budgets if budget >= items]
    compilation.encoder_cudagraph_token_budgets = named or ours
    return named


def manager_of(
    model: Any, vllm_config: VllmConfig, budgets: Sequence[int], device: torch.device
) -> EncoderCudaGraphManager:
    """Return another manager, as a runner would create it.

    Args:
        model: what it captures.
        vllm_config: the runner's.
        budgets: in place of those in it; empty for vLLM's own.
        device: where the model runs.
    """
    from vllm.v1.worker.encoder_cudagraph import EncoderCudaGraphManager

    config, compilation = copy(vllm_config), copy(vllm_config.compilation_config)
    compilation.encoder_cudagraph_token_budgets = list(budgets)
    config.compilation_config = compilation
    dtype: Any = config.model_config.dtype  # resolved by now
    return EncoderCudaGraphManager(config, device, dtype, model)


class CapturedGraph(NamedTuple):
    """One graph of a manager."""

    inputs: dict[str, torch.Tensor | None]
    """The buffers that it reads; None for one that this tower does not use."""

    replay: Callable[[], None]
    output: torch.Tensor
    """The buffer that a replay writes."""


def captured_graphs(manager: Any) -> list[CapturedGraph]:
    """Return the graphs of vLLM's manager."""
    return [
        CapturedGraph(graph.input_buffers, graph.graph.replay, graph.output_buffer)
        for path in manager.budget_graphs.values()
        for graph in path.values()
    ]


def tell_of_encoder_graphs() -> None:
    """Patch the manager to pass our models their graphs. Safe to call again."""
    from vllm.v1.worker.encoder_cudagraph import EncoderCudaGraphManager

    apply(
        Patch(EncoderCudaGraphManager, "capture", _told_after),
        Patch(EncoderCudaGraphManager, "clear", _told_before),
    )


def _told_after(stock: Callable[..., None]) -> Callable[..., None]:
    def capture(self: Any, graph_pool: Any) -> None:
        told = getattr(self.model, "graphs_captured", None)
        if told is None:
            stock(self, graph_pool)
            return
        start, free = time.perf_counter(), _free()
        try:
            stock(self, graph_pool)
            told(self, time.perf_counter() - start, free - _free())
        except Exception as error:
            if self.vllm_config.parallel_config.world_size > 1:
                raise  # the other ranks would replay batches of another size
            self.clear()
            logger.warning(
                "vtprune: for %s the vision tower is served without CUDA graphs, because they "
                "could not be captured: %s",
                self.model.graphs_for,
                error,
            )
        make = getattr(self.model, "manager_beside", None)
        if make is not None and (beside := make(self)) is not None:
            beside.capture(graph_pool)

    return capture


def _told_before(stock: Callable[..., None]) -> Callable[..., None]:
    def clear(self: Any) -> None:
        if (told := getattr(self.model, "graphs_cleared", None)) is not None:
            told(self)
        stock(self)

    return clear


def _free() -> int:
    """Return the free bytes of the GPU; 0 without one."""
    import torch

    return torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else 0
