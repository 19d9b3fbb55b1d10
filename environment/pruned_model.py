"""A real pruned model of a checkpoint in this process, without an engine around it, and batches of
pictures as vLLM's engine hands them to it."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image
from vllm.config import set_current_vllm_config
from vllm.distributed import ensure_model_parallel_initialized, init_distributed_environment
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.model_loader import get_model_loader
from vllm.model_executor.model_loader.utils import (
    initialize_model,
    process_weights_after_loading,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm_process import MODELS

from vllm_pruner import plugin

__all__ = ["be_alone", "picture_batch", "pruned_model"]


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


def picture_batch(
    config: Any, sizes: Sequence[tuple[int, int]], seed: Sequence[int], settings: dict[str, Any]
) -> dict[str, Any]:
    """Return the fields of pictures of noise, as `embed_multimodal` gets them of as many requests.

    Args:
        config: vLLM's, of the model.
        sizes: height and width of each picture.
        seed: other pictures for other numbers.
        settings: of the requests.
    """
    processor = MULTIMODAL_REGISTRY.create_processor(config.model_config)
    hf_config = config.model_config.hf_config
    marks = ("vision_start_token_id", "image_token_id", "image_token_index", "vision_end_token_id")
    prompt = [token for mark in marks if (token := getattr(hf_config, mark, None)) is not None]
    draw = np.random.default_rng(seed)
    items = []
    for size in sizes:
        picture = Image.fromarray(draw.integers(0, 256, (*size, 3), np.uint8))
        output = processor(
            prompt,
            processor.info.parse_mm_data({"image": [picture]}),
            hf_processor_mm_kwargs={"vtprune": settings},
        )
        items += output["mm_kwargs"]["image"]
    return {
        name: element.field.reduce_data([item[name] for item in items])
        for name, element in items[0].items()
    }
