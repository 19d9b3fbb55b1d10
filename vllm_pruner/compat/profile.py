"""How many images vLLM's memory profile encodes at once.

Replaces: nothing; repeats `vllm.multimodal.encoder_budget.MultiModalBudget._get_max_items`, which
needs a complete processor.
Why: vLLM's scheduler counts placeholders, so after pruning it admits many more images into one
encoder step than the tower's memory was profiled for.
Relies on: `compute_mm_encoder_budget` and the scheduler's and the model's configuration.
vLLM versions: 0.31 to 0.33.
Goes when: the scheduler counts the tower's input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllm.config import VllmConfig

__all__ = ["profiled_images"]


def profiled_images(vllm_config: VllmConfig, tokens: int, limit: int) -> int:
    """Return the number of images in vLLM's profile run, at least 1.

    Args:
        vllm_config: the engine's.
        tokens: of each image, unpruned.
        limit: images that a prompt may have.
    """
    from vllm.v1.core.encoder_cache_manager import compute_mm_encoder_budget

    scheduler, model = vllm_config.scheduler_config, vllm_config.model_config
    by_encoder = min(compute_mm_encoder_budget(scheduler, {"image": tokens})) // tokens
    requests = scheduler.max_num_seqs
    if not scheduler.enable_chunked_prefill:
        requests = min(requests, scheduler.max_num_batched_tokens // tokens)
    by_decoder = requests * max(1, min(limit, model.max_model_len // tokens))
    return max(1, min(by_encoder, by_decoder))
