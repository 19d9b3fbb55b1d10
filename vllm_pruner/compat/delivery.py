"""Record an item in the sender cache when its tensors are sent to the engine, not before.

Replaces: `add_request` and `add_request_async` of the engine core's clients.
Why: vLLM records an item when it is processed. If the request is then refused, or its client hangs
up, the engine never receives the item, and the next request with the same item, from any client,
fails with a 500.
Relies on: the sender cache mirroring the engine's receiver cache if items are recorded in the order
in which requests are sent; a client sending a request before it first awaits;
`EngineCoreRequest.mm_features` not being read before.
vLLM versions: 0.31 to 0.33.
Goes when: vLLM records an item when it is sent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any

from vllm_pruner.compat.patching import Patch, apply

if TYPE_CHECKING:
    from vllm.multimodal.cache import BaseMultiModalProcessorCache
    from vllm.multimodal.inputs import MultiModalFeatureSpec

__all__ = ["deliver_once", "patch_delivery"]

_SENDER = "_vtprune_sender"


def deliver_once(items: Iterable[Any], sender: BaseMultiModalProcessorCache) -> None:
    """Mark items so that the engine's client omits the tensors that the engine already has.

    Args:
        items: the items of an engine's input, with their tensors.
        sender: vLLM's cache that mirrors the engine's. A `MultiModalProcessorOnlyCache`, as several
            API servers use, does not; then nothing is omitted.
    """
    from vllm.multimodal.cache import MultiModalProcessorOnlyCache

    if isinstance(sender, MultiModalProcessorOnlyCache):
        return
    for item in items:
        vars(item)[_SENDER] = sender


def patch_delivery() -> None:
    """Intercept every request on its way to the engine. Safe to call again.

    Raises:
        RuntimeError: this vLLM lacks one of the clients.
    """
    from vllm.v1.engine import core_client

    apply(
        Patch(core_client.InprocClient, "add_request", _when_sent),
        Patch(core_client.SyncMPClient, "add_request", _when_sent),
        Patch(core_client.AsyncMPClient, "add_request_async", _when_sent_async),
        Patch(core_client.DPAsyncMPClient, "add_request_async", _when_sent_async),
    )


def _when_sent(add: Callable[..., None]) -> Callable[..., None]:
    def add_request(self: Any, request: Any) -> None:
        _hand_over(request)
        add(self, request)

    return add_request


def _when_sent_async(
    add: Callable[..., Coroutine[Any, Any, None]],
) -> Callable[..., Coroutine[Any, Any, None]]:
    async def add_request_async(self: Any, request: Any) -> None:
        _hand_over(request)
        await add(self, request)

    return add_request_async


def _hand_over(request: Any) -> None:
    """Record a request's items in the sender cache, and omit tensors that the engine has."""
    features = request.mm_features or []
    senders = [_sender_of(feature) for feature in features]
    sender = next((each for each in senders if each is not None), None)
    if sender is None:
        return
    # Touch all items first, as the engine does, so that none of them evicts another.
    for feature in features:
        sender.touch_sender_cache_item(_key(feature))
    # A new list: the children of one request share theirs, and only one child sends the tensors.
    request.mm_features = [
        feature if known is None else _sent(feature, known)
        for feature, known in zip(features, senders, strict=True)
    ]
    if hasattr(sender, "release_sender_touches"):  # not in 0.31, where a touch pins nothing
        sender.release_sender_touches()


def _sender_of(feature: MultiModalFeatureSpec) -> BaseMultiModalProcessorCache | None:
    return None if feature.data is None else vars(feature.data).get(_SENDER)


def _sent(
    feature: MultiModalFeatureSpec, sender: BaseMultiModalProcessorCache
) -> MultiModalFeatureSpec:
    from vllm.multimodal.inputs import MultiModalKwargsItem

    # A copy without the mark, because a client may delegate to another patched client.
    data, _ = sender.get_and_update_item((MultiModalKwargsItem(feature.data), ()), _key(feature))
    return dataclasses.replace(feature, data=data)


def _key(feature: MultiModalFeatureSpec) -> str:
    """Return the key of an item in the engine's cache."""
    return feature.mm_hash or feature.identifier
