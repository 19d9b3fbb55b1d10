"""vLLM's configuration and caches, as our multimodal processor uses them.

Replaces: `clear_cache` of a processor cache, on the instance.
Why: vLLM passes all of `mm_processor_kwargs` to HF processors; and its processor caches hold an
item under one identity, but an image has one without a plan and one for each plan.
Relies on: `ModelConfig.multimodal_config`; `clear_cache` being called on the instance; a processor
belonging to one server.
vLLM versions: 0.31 to 0.33; 0.31 has no `_get_mm_hashes`.
Goes when: vLLM has a place for a plugin's settings, and a cache with several identities per item.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllm.config import ModelConfig
    from vllm.multimodal.cache import BaseMultiModalProcessorCache
    from vllm.multimodal.processing import ProcessorInputs

__all__ = [
    "content_identities",
    "hashed",
    "item_cache",
    "item_identities",
    "known_as",
    "without_settings",
]

_ITEMS = "_vtprune_items"


def without_settings(model_config: ModelConfig, key: str) -> ModelConfig:
    """Return a copy whose `mm_processor_kwargs` lack `key`, for code that calls HF processors.

    vLLM merges `mm_processor_kwargs` into every such call, where an unknown key causes at least a
    warning and a nested object is not hashable.
    """
    mm_config = copy.copy(model_config.get_multimodal_config())
    kwargs = {k: v for k, v in (mm_config.mm_processor_kwargs or {}).items() if k != key}
    mm_config.mm_processor_kwargs = kwargs or None
    stripped = copy.copy(model_config)
    stripped.multimodal_config = mm_config
    return stripped


def item_cache(processor: Any, cache: BaseMultiModalProcessorCache) -> BaseMultiModalProcessorCache:
    """Return the processor's own cache of HF's output, shared by all requests.

    It keeps the tensors in this process, within the bound that vLLM documents for each process
    (`mm_processor_cache_gb`), and is cleared together with `cache`, a cache of vLLM's: the one for
    chats or the one for requests that generate nothing. It is not thread-safe; vLLM runs the
    processor in one thread.
    """
    from vllm.multimodal.cache import MultiModalProcessorOnlyCache

    if _ITEMS not in vars(processor):
        vars(processor)[_ITEMS] = MultiModalProcessorOnlyCache(processor.info.ctx.model_config)
    own: MultiModalProcessorOnlyCache = vars(processor)[_ITEMS]
    if vars(cache).get(_ITEMS) is not own:
        clear = cache.clear_cache

        def clear_both() -> None:
            clear()
            own.clear_cache()

        vars(cache).update({_ITEMS: own, "clear_cache": clear_both})
    return own


def known_as(cache: BaseMultiModalProcessorCache, identity: str, other: str) -> bool:
    """Also store a cached item under another identity; return whether it is cached."""
    if not cache.is_cached_item(identity):
        return False
    item, updates = cache.get_and_update_item(None, identity)
    if item is not None:
        cache.get_and_update_item((item, updates), other)
    return item is not None


def item_identities(processor: Any, inputs: ProcessorInputs, modality: str) -> list[str]:
    """Return each item's identity: its content or the client's name for it, and HF's arguments."""
    return _identities(processor, inputs)[modality]


def hashed(processor: Any, inputs: ProcessorInputs, found: dict[str, list[str]]) -> ProcessorInputs:
    """Return the inputs with items' identities in place of clients' names, so that vLLM does not
    hash the contents again. Unchanged if an identity depends on more than the name.

    Args:
        processor: vLLM's multimodal processor.
        inputs: the inputs of one prompt.
        found: their `item_identities`, by modality.
    """
    from vllm.multimodal.processing import BaseMultiModalProcessor

    base = getattr(BaseMultiModalProcessor, "_get_mm_hashes", None)
    has_own = getattr(type(processor), "_get_mm_hashes", None) is not base
    if has_own or inputs.hf_processor_mm_kwargs or getattr(inputs, "media_io_kwargs", None):
        return inputs
    return dataclasses.replace(inputs, mm_uuid_items={**(inputs.mm_uuid_items or {}), **found})


def content_identities(processor: Any, inputs: ProcessorInputs, modality: str) -> list[str | None]:
    """Return the identity of each item's content alone, without the client's name for it and HF's
    arguments; None for an item that the client only names."""
    items = inputs.mm_data_items[modality]
    given = [item is not None for item in items.get_all_items_for_hash()]
    fields = {field.name for field in dataclasses.fields(inputs)}
    changes: dict[str, Any] = {
        **dict.fromkeys(fields & {"hf_processor_mm_kwargs", "media_io_kwargs"}, {}),
        "mm_data_items": inputs.mm_data_items.select({modality}),
        "mm_uuid_items": {modality: [None if is_given else "" for is_given in given]},
    }
    alone = dataclasses.replace(inputs, **changes)
    found = _identities(processor, alone)[modality]
    return [each if is_given else None for each, is_given in zip(found, given, strict=True)]


def _identities(processor: Any, inputs: ProcessorInputs) -> dict[str, list[str]]:
    """Return all items' identities. From 0.32 on a processor may override how they are made."""
    if hasattr(processor, "_get_mm_hashes"):
        own: dict[str, list[str]] = processor._get_mm_hashes(inputs)
        return own
    info = processor.info
    algorithm = info.ctx.get_mm_config().mm_hasher_algorithm
    return dict(inputs.get_mm_hashes(info.model_id, algorithm))
