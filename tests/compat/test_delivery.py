"""What the engine has is noted when a request goes there, by vLLM's own cache and requests."""

from __future__ import annotations

from copy import copy
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.multimodal.cache import LruKeyReplicatedReceiverCache, LruKeyReplicatedSenderCache
from vllm.multimodal.inputs import MultiModalFeatureSpec, MultiModalKwargsItem, PlaceholderRange
from vllm.v1.engine import EngineCoreRequest

from vllm_pruner import compat
from vllm_pruner.compat.delivery import _hand_over


@pytest.fixture
def caches() -> tuple[Any, Any]:
    """The API server's and the engine's."""
    multimodal = SimpleNamespace(mm_processor_cache_gb=1)
    config: Any = SimpleNamespace(get_multimodal_config=lambda: multimodal)
    return LruKeyReplicatedSenderCache(config), LruKeyReplicatedReceiverCache(config)


def request_with(*identities: str) -> EngineCoreRequest:
    """A request with an item for each identity."""
    features = [
        MultiModalFeatureSpec(
            data=MultiModalKwargsItem.dummy(),
            modality="image",
            identifier=f"lora:{identity}",
            mm_position=PlaceholderRange(offset=place, length=1),
            mm_hash=identity,
        )
        for place, identity in enumerate(identities)
    ]
    return EngineCoreRequest(
        request_id="request",
        prompt_token_ids=[0] * len(features),
        mm_features=features,
        sampling_params=None,
        pooling_params=None,
        arrival_time=0.0,
        lora_request=None,
        cache_salt=None,
        data_parallel_rank=None,
    )


def mark(request: EngineCoreRequest, sender: Any) -> None:
    compat.deliver_once([feature.data for feature in request.mm_features or []], sender)


def sent(request: EngineCoreRequest, engine: Any) -> list[bool]:
    """Which items a request takes along; the engine, given the request, has to have the others."""
    _hand_over(request)
    took = [feature.data is not None for feature in request.mm_features or []]
    engine.get_and_update_features([copy(feature) for feature in request.mm_features or []])
    return took


def test_items_are_sent_once_whatever_was_made_and_not_sent(caches: tuple[Any, Any]) -> None:
    sender, engine = caches
    refused = request_with("cat", "dog")
    mark(refused, sender)
    assert not sender.is_cached_item("cat")
    first, second = request_with("cat", "cat"), request_with("dog", "cat")
    for request in (first, second):
        mark(request, sender)
    assert sent(first, engine) == [True, False]
    assert sent(second, engine) == [True, False]
    _hand_over(second)
    assert [feature.data is None for feature in second.mm_features or []] == [False, True]


def test_children_of_one_request_take_its_items_once(caches: tuple[Any, Any]) -> None:
    sender, engine = caches
    parent = request_with("cat")
    mark(parent, sender)
    children = [copy(parent), parent]
    assert [sent(child, engine) for child in children] == [[True], [False]]


def test_items_of_another_server_are_left_as_they_are(caches: tuple[Any, Any]) -> None:
    request = request_with("cat")
    features = request.mm_features
    _hand_over(request)
    assert request.mm_features is features
    assert not caches[0].is_cached_item("cat")
