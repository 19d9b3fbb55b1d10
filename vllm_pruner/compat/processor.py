"""What the multimodal processor needs of vLLM's configuration and caches.

Replaces: `clear_cache` of a processor cache, on the instance.
Why: vLLM passes all of `mm_processor_kwargs` to HF processors; and its caches of their output hold
an item under one identity, where a bare image and its plans have several.
Relies on: `ModelConfig.multimodal_config`; `clear_cache` being called on the instance; a processor
that serves one server.
vLLM versions: 0.32 and 0.33; 0.31 has no `_get_mm_hashes`.
Goes when: vLLM has a place for a plugin's settings, and a cache with two identities an item.
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

    vLLM merges `mm_processor_kwargs` into every such call, where a foreign key is at best warned
    about and a nested object is not hashable.
    """
    mm_config = copy.copy(model_config.get_multimodal_config())
    kwargs = {k: v for k, v in (mm_config.mm_processor_kwargs or {}).items() if k != key}
    mm_config.mm_processor_kwargs = kwargs or None
    stripped = copy.copy(model_config)
    stripped.multimodal_config = mm_config
    return stripped


def item_cache(processor: Any, cache: BaseMultiModalProcessorCache) -> BaseMultiModalProcessorCache:
    """Return the processor's own cache of HF's output, for all requests alike.

    It keeps the tensors in this process, with the bound that vLLM documents for each process
    (`mm_processor_cache_gb`), and is emptied with `cache`, which is one of vLLM's: that of chats or
    that of requests which generate nothing. It is not safe for threads; vLLM processes on one.
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
    """Let a cached item be found under another identity too; return whether it is cached."""
    if not cache.is_cached_item(identity):
        return False
    item, updates = cache.get_and_update_item(None, identity)
    if item is not None:
        cache.get_and_update_item((item, updates), other)
    return item is not None


def item_identities(processor: Any, inputs: ProcessorInputs, modality: str) -> list[str]:
    """Return the identity of each item: of its content or name, and of the arguments for HF."""
    return _identities(processor, inputs)[modality]


def hashed(processor: Any, inputs: ProcessorInputs, found: dict[str, list[str]]) -> ProcessorInputs:
    """Return the inputs with the identities of items where clients' names are, which spares vLLM
    to hash the contents again. The same inputs where more enters an identity than a name.

    Args:
        processor: vLLM's.
        inputs: whose `item_identities` they are.
        found: the identities, by modality.
    """
    from vllm.multimodal.processing import BaseMultiModalProcessor

    base = getattr(BaseMultiModalProcessor, "_get_mm_hashes", None)
    has_own = getattr(type(processor), "_get_mm_hashes", None) is not base
    if has_own or inputs.hf_processor_mm_kwargs or getattr(inputs, "media_io_kwargs", None):
        return inputs
    return dataclasses.replace(inputs, mm_uuid_items={**(inputs.mm_uuid_items or {}), **found})


def content_identities(processor: Any, inputs: ProcessorInputs, modality: str) -> list[str | None]:
    """Return the identity of the content of each item, whatever its client calls it and whatever
    arguments HF gets; None for one that is only named."""
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
    """Until 0.31 no processor could have its own rule; from 0.32 on some do."""
    if hasattr(processor, "_get_mm_hashes"):
        own: dict[str, list[str]] = processor._get_mm_hashes(inputs)
        return own
    info = processor.info
    algorithm = info.ctx.get_mm_config().mm_hasher_algorithm
    return dict(inputs.get_mm_hashes(info.model_id, algorithm))
