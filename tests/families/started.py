"""The arguments of an engine that prunes, as vLLM takes them."""

from __future__ import annotations

from typing import Any

from vllm.engine.arg_utils import EngineArgs
from vllm_process import MODELS

from vllm_pruner import plugin


def engine_arguments(model: str, settings: dict[str, Any], **flags: Any) -> EngineArgs:
    """Return them for a checkpoint in `.cache/models`, with settings and vLLM's own flags."""
    plugin.register()
    return EngineArgs(
        model=str(MODELS / model),
        mm_processor_kwargs={"vtprune": settings},
        max_model_len=4096,
        **flags,
    )
