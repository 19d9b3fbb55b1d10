"""Enable vLLM's hook that corrects positions when embeddings are fed to the decoder.

Replaces: `MultiModalConfig.is_multimodal_pruning_enabled`, which then is also true if our settings
are in `mm_processor_kwargs`; on a CPU, the runner's attribute of that name.
Why: it controls the hook `recompute_mrope_positions`, the size of Qwen3-VL's position table (an
image advances positions by its height or width, however few tokens it keeps) and the cache key of
compiled graphs; vLLM's own switch, `video_pruning_rate`, prunes videos. The CPU runner overrides
`load_model` without setting the attribute, so that it stays False.
Relies on: model runners calling the hook for models with `supports_multimodal_pruning`, which
`GPUModelRunner._gather_mm_embeddings` does with the positions that `_init_mrope_positions` made,
and of runner V2 the state of every model, by a `MultiModalPruner` (`recompute`) that
`maybe_create_mm_pruner` makes; models reading the switch once, when they are built.
vLLM versions: 0.31 to 0.33.
Goes when: a model can ask for the hook itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vllm_pruner.compat.patching import Patch, apply

__all__ = ["enable_position_hook", "enable_position_hook_on_cpu"]


def enable_position_hook(key: str) -> None:
    """Turn the hook on for models that are configured with our settings. Safe to call again.

    Args:
        key: our key in `mm_processor_kwargs`.

    Raises:
        RuntimeError: this vLLM has no such switch.
    """
    from vllm.config.multimodal import MultiModalConfig

    def or_ours(stock: Callable[[Any], bool]) -> Callable[[Any], bool]:
        def is_multimodal_pruning_enabled(self: Any) -> bool:
            return key in (self.mm_processor_kwargs or {}) or stock(self)

        return is_multimodal_pruning_enabled

    apply(Patch(MultiModalConfig, "is_multimodal_pruning_enabled", or_ours))


def enable_position_hook_on_cpu() -> None:
    """Turn the hook on in the CPU runner, if this process serves on a CPU. Call it while the model
    is built. Safe to call again."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    def enabled(self: Any) -> bool:
        config = self.model_config.multimodal_config
        return config is not None and bool(config.is_multimodal_pruning_enabled())

    def leave(self: Any, value: bool) -> None:
        """`__init__` sets it to False."""

    runner: Any = CPUModelRunner
    runner.is_multimodal_pruning_enabled = property(enabled, leave)
