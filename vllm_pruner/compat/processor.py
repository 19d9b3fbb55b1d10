"""What the multimodal processor needs of vLLM's configuration and cache.

Replaces: `clear_cache` of one processor cache, on the instance.
Why: vLLM passes all of `mm_processor_kwargs` to HF processors, and its cache holds an item under
one identity, where a bare image and its plans have several.
Relies on: `ModelConfig.multimodal_config`; `clear_cache` being called on the instance; and, for
`prompt/`, on the methods of `BaseMultiModalProcessor` that `symbols` lists: what
`_cached_apply_hf_processor` does between its hashes and its merged items is written again there.
vLLM versions: 0.32 and 0.33; 0.31 has neither `_get_mm_hashes` nor `release_sender_touches`.
Goes when: vLLM has a place for a plugin's settings, and a cache with two identities an item.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllm.config import ModelConfig
    from vllm.multimodal.cache import BaseMultiModalProcessorCache
    from vllm.multimodal.processing import ProcessorInputs

__all__ = ["bare_image_cache", "image_identities", "release_touches", "without_settings"]

_BESIDE = "_vtprune_bare"


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


def bare_image_cache(
    cache: BaseMultiModalProcessorCache, model_config: ModelConfig
) -> BaseMultiModalProcessorCache:
    """Return the cache beside vLLM's own that keeps HF's output for images without plans.

    Of vLLM's three processor caches, one keeps the tensors in this process and serves as it is. The
    other two hand them to the engine, so one of the first kind is put beside them, with the bound
    that vLLM documents for each process (`mm_processor_cache_gb`), and emptied with them. Neither
    is safe for threads; vLLM processes images on one.
    """
    from vllm.multimodal.cache import MultiModalProcessorOnlyCache

    if isinstance(cache, MultiModalProcessorOnlyCache):
        return cache
    beside: MultiModalProcessorOnlyCache | None = vars(cache).get(_BESIDE)
    if beside is not None:
        return beside
    beside = MultiModalProcessorOnlyCache(model_config)
    clear = cache.clear_cache

    def clear_both() -> None:
        clear()
        beside.clear_cache()

    vars(cache).update({_BESIDE: beside, "clear_cache": clear_both})
    return beside


def image_identities(processor: Any, inputs: ProcessorInputs) -> list[str]:
    """Return vLLM's identity of each image: of its content, or given by the client.

    Until 0.31 no processor could have its own rule; from 0.32 on some do.
    """
    if hasattr(processor, "_get_mm_hashes"):
        return list(processor._get_mm_hashes(inputs)["image"])
    info = processor.info
    algorithm = info.ctx.get_mm_config().mm_hasher_algorithm
    return list(inputs.get_mm_hashes(info.model_id, algorithm)["image"])


def release_touches(cache: BaseMultiModalProcessorCache) -> None:
    """Let the cache drop again what the items of a merged request kept from being dropped.

    Until 0.31 nothing is kept so.
    """
    if hasattr(cache, "release_sender_touches"):
        cache.release_sender_touches()
