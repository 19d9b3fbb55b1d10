"""A real model of a checkpoint in this process, pruned or stock, without an engine around it, and
batches of pictures as vLLM's engine hands them to it."""

from __future__ import annotations

import gc
import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from typing import Any
from unittest import mock

import numpy as np
import psutil
import torch
from mistral_words import ids_of
from PIL import Image
from vllm.config import get_current_vllm_config, set_current_vllm_config
from vllm.config.model import _REGISTERED_MODEL_CLASS_OVERRIDES
from vllm.distributed import (
    destroy_model_parallel,
    ensure_model_parallel_initialized,
    init_distributed_environment,
)
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.model_loader import get_model_loader
from vllm.model_executor.model_loader.utils import (
    _MODEL_ARCH_BY_HASH,
    initialize_model,
    process_weights_after_loading,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.tokenizers.mistral import MistralTokenizer
from vllm_process import MODELS

from vllm_pruner import plugin
from vllm_pruner.compat.versions import at_least
from vllm_pruner.families.registry import classes

__all__ = [
    "SERVED_AS",
    "be_alone",
    "picture_batch",
    "picture_items",
    "pruned_model",
    "stock_class",
    "stock_model",
    "stock_processor",
]


_FLAGS: dict[str, dict[str, Any]] = {}
"""What a checkpoint wants where there is no GPU."""

if at_least((0, 32)):  # 0.31 has tables of n-grams in plain memory unless it is told otherwise
    _FLAGS["demo-qwen4"] = {"engram_config": {"cpu_offload": False}}


SERVED_AS = {"DeepseekV4ForCausalLM": "DeepseekV4ForConditionalGeneration"}
"""What vLLM makes of the architecture that a checkpoint names, if its model has a tower."""


@contextmanager
def pruned_model(checkpoint: str, settings: dict[str, Any], **flags: Any) -> Iterator[Any]:
    """Yield vLLM's configuration and the pruned model, loaded."""
    plugin.register()
    with _loaded(checkpoint, mm_processor_kwargs={"vtprune": settings}, **flags) as made:
        yield made


@contextmanager
def stock_model(checkpoint: str, **flags: Any) -> Iterator[Any]:
    """Yield the same of stock vLLM, whatever was pruned in this process before: vLLM keeps a class
    that it was given in place of its own."""
    with _loaded(checkpoint, model_class_overrides=_stock_overrides(checkpoint), **flags) as made:
        yield made


def stock_processor(checkpoint: str) -> Any:
    """Return the processor of a checkpoint that stock vLLM makes, whatever was pruned before."""
    _forget_classes()
    overrides = _stock_overrides(checkpoint)
    arguments = EngineArgs(model=str(MODELS / checkpoint), model_class_overrides=overrides)
    return MULTIMODAL_REGISTRY.create_processor(arguments.create_model_config())


def _stock_overrides(checkpoint: str) -> dict[str, str]:
    """Return vLLM's own class of a checkpoint's architecture, as a replacement of it."""
    (named,) = json.loads((MODELS / checkpoint / "config.json").read_text())["architectures"]
    architecture = SERVED_AS.get(named, named)
    own = stock_class(classes()[architecture])
    return {architecture: f"{own.__module__}:{own.__name__}"}


def _forget_classes() -> None:
    """Have vLLM look for the class of an architecture again, which may have had another one."""
    for known in (_REGISTERED_MODEL_CLASS_OVERRIDES, _MODEL_ARCH_BY_HASH):
        known.clear()


def stock_class(ours: str) -> type:
    """Return vLLM's own class under one of ours, which is given as `module:Class`."""
    found: Any = EntryPoint("", ours, "").load()
    return next(each for each in found.__mro__ if each.__module__.startswith("vllm."))


@contextmanager
def _loaded(checkpoint: str, **flags: Any) -> Iterator[Any]:
    _forget_classes()
    _free_earlier_models()
    flags = _FLAGS.get(checkpoint, {}) | flags
    arguments = EngineArgs(model=str(MODELS / checkpoint), max_model_len=4096, **flags)
    # vLLM turns switches on for some models, which a server of another test would inherit.
    with mock.patch.dict(os.environ), _default_dtype_kept():
        config = arguments.create_engine_config()
        torch.set_default_dtype(config.model_config.dtype)
        with set_current_vllm_config(config), _memory_told(), _decoder_left_out():
            be_alone()
            model = initialize_model(config)
            get_model_loader(config.load_config).load_weights(model, config.model_config)
            process_weights_after_loading(model, config.model_config, torch.device("cpu"))
            yield config, model.eval()


@contextmanager
def _default_dtype_kept() -> Iterator[None]:
    before = torch.get_default_dtype()
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _free_earlier_models() -> None:
    """Collect the cycles that models are in, which hold their memory until Python looks of itself:
    6 GB of twenty small ones, 2026-11-30. What was imported before the first is not looked at."""
    gc.collect()
    if not gc.get_freeze_count():
        gc.freeze()


@contextmanager
def _memory_told() -> Iterator[None]:
    """Have torch tell the host's memory for a device's, as vLLM's worker for CPUs does: Gemma 4's
    tower asks for it."""

    def free_and_total(*_: Any) -> tuple[int, int]:
        memory = psutil.virtual_memory()
        return memory.available, memory.total

    with mock.patch.object(torch.accelerator, "get_memory_info", free_and_total):
        yield


class _NoStream:
    """Stands for a stream that is never entered, and for an event that never comes."""


@contextmanager
def _decoder_left_out() -> Iterator[None]:
    """Let a decoder be built that an engine leaves out which only encodes: Kimi-K3's, though on no
    device then, asks for a stream of a GPU, and for kernels that are installed beside one;
    DeepSeek-V4's for events."""
    unasked = {"VLLM_KIMI_K3_GEMM_AR": "0"}
    of_gpu = mock.patch.multiple(torch.cuda, Stream=_NoStream, Event=_NoStream)
    with of_gpu, mock.patch.dict(os.environ, unasked):
        yield


def be_alone() -> None:
    """Be the one rank of one, as often as asked; the group stays until the process ends, or a
    mixture of experts asks for one of its own."""
    if not torch.distributed.is_initialized():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        init_distributed_environment(1, 0, f"tcp://127.0.0.1:{port}", 0, backend="gloo")
    elif get_current_vllm_config().parallel_config.is_moe_model:
        destroy_model_parallel()
    ensure_model_parallel_initialized(1, 1)


def picture_prompt(
    config: Any, picture: Image.Image, settings: dict[str, Any], **kwargs: Any
) -> Any:
    """Return what vLLM's processor makes of a message with a picture and a question.

    Args:
        config: vLLM's, of the model.
        picture: the picture.
        settings: of the request.
        kwargs: for HF's processor.
    """
    processor = MULTIMODAL_REGISTRY.create_processor(config.model_config)
    tokenizer: Any = processor.info.get_tokenizer()
    items, kwargs = (
        processor.info.parse_mm_data({"image": [picture]}),
        {**kwargs, "vtprune": settings},
    )
    if isinstance(tokenizer, MistralTokenizer):
        prompt: Any = ids_of(tokenizer, picture, "What?")
        return processor(prompt, items, hf_processor_mm_kwargs=kwargs)
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}
    prompt = tokenizer.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
    return processor(prompt, items, hf_processor_mm_kwargs=kwargs)


def picture_items(
    config: Any,
    sizes: Sequence[tuple[int, int]],
    seed: Sequence[int],
    settings: dict[str, Any],
    **kwargs: Any,
) -> list[Any]:
    """Return pictures of noise as the API server sends them, of as many requests.

    Args:
        config: vLLM's, of the model.
        sizes: height and width of each picture.
        seed: other pictures for other numbers.
        settings: of the requests.
        kwargs: for HF's processor.
    """
    draw = np.random.default_rng(seed)
    pictures = [Image.fromarray(draw.integers(0, 256, (*size, 3), np.uint8)) for size in sizes]
    outputs = [picture_prompt(config, picture, settings, **kwargs) for picture in pictures]
    return [item for output in outputs for item in output["mm_kwargs"]["image"]]


def picture_batch(
    config: Any,
    sizes: Sequence[tuple[int, int]],
    seed: Sequence[int],
    settings: dict[str, Any],
    **kwargs: Any,
) -> dict[str, Any]:
    """Return the fields of `picture_items` as `embed_multimodal` gets them on a CPU."""
    items = picture_items(config, sizes, seed, settings, **kwargs)
    return {
        name: element.field.reduce_data([item[name] for item in items])
        for name, element in items[0].items()
    }
