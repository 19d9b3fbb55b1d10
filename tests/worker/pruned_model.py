"""A real pruned model of a checkpoint in the test's own process, without an engine around it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from vllm.config import set_current_vllm_config
from vllm.distributed import ensure_model_parallel_initialized, init_distributed_environment
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.model_loader import get_model_loader
from vllm.model_executor.model_loader.utils import (
    initialize_model,
    process_weights_after_loading,
)
from vllm_process import MODELS

from vllm_pruner import plugin


@contextmanager
def pruned_model(checkpoint: str, settings: dict[str, Any], **flags: Any) -> Iterator[Any]:
    """Yield vLLM's configuration and the model, loaded."""
    plugin.register()
    arguments = EngineArgs(
        model=str(MODELS / checkpoint),
        mm_processor_kwargs={"vtprune": settings},
        max_model_len=4096,
        **flags,
    )
    config = arguments.create_engine_config()
    before = torch.get_default_dtype()
    torch.set_default_dtype(config.model_config.dtype)
    try:
        with set_current_vllm_config(config):
            be_alone()
            model = initialize_model(config)
            get_model_loader(config.load_config).load_weights(model, config.model_config)
            process_weights_after_loading(model, config.model_config, torch.device("cpu"))
            yield config, model.eval()
    finally:
        torch.set_default_dtype(before)


def be_alone() -> None:
    """Be the one rank of one, as often as asked; the group stays until the process ends."""
    if torch.distributed.is_initialized():
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    init_distributed_environment(1, 0, f"tcp://127.0.0.1:{port}", 0, backend="gloo")
    ensure_model_parallel_initialized(1, 1)
