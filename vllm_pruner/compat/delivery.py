"""An item's tensors go to the engine once, and that is noted when they go.

Replaces: `add_request` and `add_request_async` of the clients of the engine core.
Why: vLLM notes it when an item is processed. A request that is refused afterwards, or whose client
hangs up, never takes its items to the engine, and the next request that names them, anyone's, is
answered by a 500.
Relies on: the sender cache mirroring the engine's own by the order in which requests are sent; a
client sending before it first waits; `EngineCoreRequest.mm_features` being read no earlier.
vLLM versions: 0.31 to 0.33.
Goes when: vLLM notes an item when it is sent.
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
    """Let the client of the engine leave out what the engine has of these items.

    Args:
        items: of an engine's input, with their tensors.
        sender: vLLM's cache that knows what the engine has. One that only keeps tensors itself,
            for several API servers, leaves nothing out.
    """
    from vllm.multimodal.cache import MultiModalProcessorOnlyCache

    if isinstance(sender, MultiModalProcessorOnlyCache):
        return
    for item in items:
        vars(item)[_SENDER] = sender


def patch_delivery() -> None:
    """Look at every request as it goes to the engine. Safe to call again.

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
    """Note in the sender cache what a request takes along, and leave out what the engine has."""
    features = request.mm_features or []
    senders = [_sender_of(feature) for feature in features]
    sender = next((each for each in senders if each is not None), None)
    if sender is None:
        return
    # All at first, as the engine does: none of a request's own items makes room for another.
    for feature in features:
        sender.touch_sender_cache_item(_key(feature))
    # In a list of its own: the children of one request share theirs, and one takes the tensors.
    request.mm_features = [
        feature if known is None else _sent(feature, known)
        for feature, known in zip(features, senders, strict=True)
    ]
    if hasattr(sender, "release_sender_touches"):  # until 0.31 no touch lasts
        sender.release_sender_touches()


def _sender_of(feature: MultiModalFeatureSpec) -> BaseMultiModalProcessorCache | None:
    return None if feature.data is None else vars(feature.data).get(_SENDER)


def _sent(
    feature: MultiModalFeatureSpec, sender: BaseMultiModalProcessorCache
) -> MultiModalFeatureSpec:
    from vllm.multimodal.inputs import MultiModalKwargsItem

    # A copy without the mark: a client that calls another one's method looks a second time.
    data, _ = sender.get_and_update_item((MultiModalKwargsItem(feature.data), ()), _key(feature))
    return dataclasses.replace(feature, data=data)


def _key(feature: MultiModalFeatureSpec) -> str:
    """What the engine's cache knows an item by."""
    return feature.mm_hash or feature.identifier
