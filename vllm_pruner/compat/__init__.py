"""Every touch of a vLLM private, one a file; `symbols` has the table of all names relied on."""

from vllm_pruner.compat.chat import patch_chat
from vllm_pruner.compat.endpoints import enable_endpoints
from vllm_pruner.compat.engine_args import patch_engine_args
from vllm_pruner.compat.mrope import enable_position_hook, enable_position_hook_on_cpu
from vllm_pruner.compat.processor import (
    bare_image_cache,
    image_identities,
    release_touches,
    without_settings,
)
from vllm_pruner.compat.profile import profiled_images
from vllm_pruner.compat.symbols import Process
from vllm_pruner.compat.tower import position_embedding, tower_attention
from vllm_pruner.compat.tracing import patch_tracing
from vllm_pruner.compat.versions import SUPPORTED, check, check_version, is_known
from vllm_pruner.compat.worker_methods import add_worker_methods

__all__ = [
    "SUPPORTED",
    "Process",
    "add_worker_methods",
    "bare_image_cache",
    "check",
    "check_version",
    "enable_endpoints",
    "enable_position_hook",
    "enable_position_hook_on_cpu",
    "image_identities",
    "is_known",
    "patch_chat",
    "patch_engine_args",
    "patch_tracing",
    "position_embedding",
    "profiled_images",
    "release_touches",
    "tower_attention",
    "without_settings",
]
