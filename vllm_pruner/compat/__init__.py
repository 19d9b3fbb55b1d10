"""Every use of a vLLM private, one per file. `symbols` lists all names that vtprune relies on, with
`symbol`, `model_symbols` and `family_symbols`; `versions` looks them up; `patching` replaces them.

- **Start**: `engine_args`, `model_classes`, `endpoints`, `log_lines`.
- **Requests and answers**: `chat`, `chat_batch`, `completion`, `messages`, `pooling`, `rendered`,
  `offline`, `raw_prompts`, `generate`, `tracing`, `key_holder`.
- **Images and prompts**: `image_header`, `video_header`, `known_files`, `processor`,
  `stock_processor`, `delivery`, `mistral_prompt`, `placing`, `in_tree`, `sent_embeddings`.
- **Engine**: `worker_methods`, `profile`, `mrope`, `encoder_graphs`, `new_weights`, `adapters`,
  `draft_names`.
- **Inside towers**: `tower`, `hf_tower`, `sequences`, `resampler`.
"""

from vllm_pruner.compat.adapters import PlainEmbedding
from vllm_pruner.compat.chat import patch_chat
from vllm_pruner.compat.chat_batch import patch_chat_batch
from vllm_pruner.compat.completion import patch_completion
from vllm_pruner.compat.delivery import deliver_once, patch_delivery
from vllm_pruner.compat.draft_names import patch_draft_names
from vllm_pruner.compat.encoder_graphs import (
    CapturedGraph,
    captured_graphs,
    encoder_graphs_known,
    manager_of,
    on_cuda,
    on_rocm,
    set_graph_budgets,
    tell_of_encoder_graphs,
)
from vllm_pruner.compat.endpoints import enable_endpoints
from vllm_pruner.compat.engine_args import patch_engine_args
from vllm_pruner.compat.generate import (
    ask_workers,
    asks_all_engines,
    patch_generate,
    queued_tokens,
)
from vllm_pruner.compat.hf_tower import HFAttention, hf_attention
from vllm_pruner.compat.image_header import patch_image_header
from vllm_pruner.compat.in_tree import in_tree, in_tree_known
from vllm_pruner.compat.key_holder import key_holder, patch_key_holder
from vllm_pruner.compat.known_files import patch_known_files, reduces_files
from vllm_pruner.compat.log_lines import quiet_overrides
from vllm_pruner.compat.messages import patch_messages
from vllm_pruner.compat.mistral_prompt import patch_mistral_prompt
from vllm_pruner.compat.model_classes import patch_model_classes
from vllm_pruner.compat.model_symbols import GRAPH_METHODS
from vllm_pruner.compat.mrope import (
    enable_position_hook,
    enable_position_hook_on_cpu,
)
from vllm_pruner.compat.new_weights import when_weights_change
from vllm_pruner.compat.offline import patch_offline
from vllm_pruner.compat.placing import told_if_unplaced
from vllm_pruner.compat.pooling import patch_pooling
from vllm_pruner.compat.processor import (
    content_identities,
    hashed,
    item_cache,
    item_identities,
    known_as,
    without_settings,
)
from vllm_pruner.compat.profile import profiled_images
from vllm_pruner.compat.raw_prompts import patch_raw_prompts
from vllm_pruner.compat.rendered import patch_rendered
from vllm_pruner.compat.resampler import cross_attention, weights_of
from vllm_pruner.compat.sent_embeddings import lacks_rows, prompt_embeds_token
from vllm_pruner.compat.sequences import device_ends, pixtral_sequences, tower_sequences
from vllm_pruner.compat.stock_processor import patch_stock_processor
from vllm_pruner.compat.symbols import Process
from vllm_pruner.compat.tower import last_norm, position_embedding, tower_attention
from vllm_pruner.compat.tracing import patch_tracing
from vllm_pruner.compat.versions import SUPPORTED, at_least, check, check_version, is_known
from vllm_pruner.compat.video_header import patch_video_header
from vllm_pruner.compat.worker_methods import add_worker_methods

__all__ = [
    "GRAPH_METHODS",
    "SUPPORTED",
    "CapturedGraph",
    "HFAttention",
    "PlainEmbedding",
    "Process",
    "add_worker_methods",
    "ask_workers",
    "asks_all_engines",
    "at_least",
    "captured_graphs",
    "check",
    "check_version",
    "content_identities",
    "cross_attention",
    "deliver_once",
    "device_ends",
    "enable_endpoints",
    "enable_position_hook",
    "enable_position_hook_on_cpu",
    "encoder_graphs_known",
    "hashed",
    "hf_attention",
    "in_tree",
    "in_tree_known",
    "is_known",
    "item_cache",
    "item_identities",
    "key_holder",
    "known_as",
    "lacks_rows",
    "last_norm",
    "manager_of",
    "on_cuda",
    "on_rocm",
    "patch_chat",
    "patch_chat_batch",
    "patch_completion",
    "patch_delivery",
    "patch_draft_names",
    "patch_engine_args",
    "patch_generate",
    "patch_image_header",
    "patch_key_holder",
    "patch_known_files",
    "patch_messages",
    "patch_mistral_prompt",
    "patch_model_classes",
    "patch_offline",
    "patch_pooling",
    "patch_raw_prompts",
    "patch_rendered",
    "patch_stock_processor",
    "patch_tracing",
    "patch_video_header",
    "pixtral_sequences",
    "position_embedding",
    "profiled_images",
    "prompt_embeds_token",
    "queued_tokens",
    "quiet_overrides",
    "reduces_files",
    "set_graph_budgets",
    "tell_of_encoder_graphs",
    "told_if_unplaced",
    "tower_attention",
    "tower_sequences",
    "weights_of",
    "when_weights_change",
    "without_settings",
]
