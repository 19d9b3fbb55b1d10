"""vLLM's own processor of a pruning model, made as the API server makes it."""

from __future__ import annotations

from typing import Any

from vllm.engine.arg_utils import EngineArgs
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm_process import MODELS

__all__ = ["pruning_processor"]


def pruning_processor(
    checkpoint: str,
    *,
    settings: dict[str, Any] | None = None,
    kwargs: dict[str, Any] | None = None,
    **engine: Any,
) -> Any:
    """Return that of a folder of `.cache/models`.

    Args:
        checkpoint: the folder.
        settings: the operator's; by default one half is removed.
        kwargs: the operator's arguments for HF's processor.
        engine: other arguments of vLLM.
    """
    from vllm_pruner import plugin

    plugin.register()
    arguments = EngineArgs(
        model=str(MODELS / checkpoint),
        mm_processor_kwargs={"vtprune": settings or {"rate": 0.5}, **(kwargs or {})},
        max_model_len=4096,
        trust_remote_code=True,  # a configuration that only the checkpoint has
        enforce_eager=True,
        **engine,
    )
    return MULTIMODAL_REGISTRY.create_processor(arguments.create_model_config())
