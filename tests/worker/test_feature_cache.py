"""The cache of the tower's features: bounded, least recently used goes first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from vllm_pruner.worker.feature_cache import FeatureCache

TOKENS, WIDTH = 4, 3
COLUMNS = {"features": (WIDTH, torch.bfloat16), "importance": (0, torch.float32)}
IMAGE_BYTES = TOKENS * (WIDTH * 2 + 4)


@dataclass
class Asker:
    """Asks for images, each a letter, and notes which ones the tower had to encode."""

    cache: FeatureCache
    encoded: list[str] = field(default_factory=list)

    def __call__(self, images: str) -> list[str]:
        """Fetch, check what comes back, and return which images were encoded for it."""
        calls: list[str] = []

        def encode(places: list[int]) -> dict[str, torch.Tensor]:
            calls.append("".join(images[place] for place in places))
            values = torch.tensor([float(ord(images[place])) for place in places])
            features = values.view(-1, 1, 1).expand(-1, TOKENS, WIDTH).bfloat16()
            importance = values.view(-1, 1).expand(-1, TOKENS) + 0.001
            return {"features": features, "importance": importance}

        crops = [1] * len(images)
        features, importance = self.cache.fetch(list(images), crops, encode).values()
        values = torch.tensor([float(ord(image)) for image in images])
        assert features.dtype == torch.bfloat16
        assert features[:, 0, 0].tolist() == values.tolist()
        assert torch.equal(importance[:, 1], values + 0.001), "importance stays in float32"
        assert len(calls) <= 1
        return calls


def _asker(images: float) -> Asker:
    size = int(images * IMAGE_BYTES)
    return Asker(FeatureCache(size, TOKENS, COLUMNS, torch.device("cpu")))


def test_a_known_image_is_not_encoded_again() -> None:
    ask = _asker(4)
    assert ask("ab") == ["ab"]
    assert ask("b") == []
    assert ask("cabc") == ["c"]
    assert (ask.cache.hits, ask.cache.misses, len(ask.cache)) == (4, 3, 3)


def test_the_one_unused_longest_goes_first() -> None:
    ask = _asker(2.9)
    assert [ask(image) for image in "aba"] == [["a"], ["b"], []]
    assert ask("c") == ["c"]
    assert ask("a") == []
    assert ask("b") == ["b"]


def test_a_new_image_may_push_out_one_of_the_same_request() -> None:
    ask = _asker(1)
    assert ask("a") == ["a"]
    assert ask("abc") == ["bc"]
    assert ask("c") == []


@pytest.mark.parametrize("size", [0, 0.99])
def test_without_room_for_one_image_it_keeps_none(size: float) -> None:
    ask = _asker(size)
    assert ask("aa") == ["a"]
    assert ask("a") == ["a"]
    assert len(ask.cache) == 0


def test_cleared_it_knows_nothing_and_goes_on() -> None:
    ask = _asker(1)
    ask("a")
    ask.cache.clear()
    assert ask("a") == ["a"]
    assert ask("a") == []


def test_its_memory_takes_the_types_it_is_told_under_any_default() -> None:
    """vLLM builds a model with the model's own type as torch's default."""
    torch.set_default_dtype(torch.bfloat16)
    try:
        ask = _asker(1)
    finally:
        torch.set_default_dtype(torch.float32)
    ask("a")
    assert ask("a") == []


def _tower(calls: list[list[int]], crops: list[int]) -> Callable[[list[int]], Any]:
    """Every crop a number of its own: ten times the image's place, and its place in the image."""

    def encode(places: list[int]) -> dict[str, torch.Tensor]:
        calls.append(places)
        values = torch.tensor(
            [10.0 * place + crop for place in places for crop in range(crops[place])]
        )
        features = values.view(-1, 1, 1).expand(-1, TOKENS, WIDTH).bfloat16()
        importance = values.view(-1, 1).expand(-1, TOKENS)
        return {"features": features, "importance": importance}

    return encode


def test_images_of_several_crops_are_kept_and_forgotten_as_a_whole() -> None:
    cache = FeatureCache(7 * IMAGE_BYTES, TOKENS, COLUMNS, torch.device("cpu"))
    names, crops = ["a", "b", "c"], [3, 1, 3]
    calls: list[list[int]] = []
    for _ in range(2):
        features, importance = cache.fetch(names, crops, _tower(calls, crops)).values()
        assert features[:, 0, 0].tolist() == importance[:, 0].tolist() == [0, 1, 2, 10, 20, 21, 22]
    assert calls == [[0, 1, 2]]
    # Two crops of d take the place of a, asked for longest ago: e finds room beside it.
    cache.fetch(["d"], [2], _tower(calls, [2]))
    cache.fetch(["e"], [1], _tower(calls, [1]))
    assert len(cache) == 4
    calls.clear()
    cache.fetch(["b", "c", "d", "e"], [1, 3, 2, 1], _tower(calls, [1, 3, 2, 1]))
    assert calls == []
    # Room for five is made of b, c and d; one slot stays free.
    features = cache.fetch(["f"], [5], _tower(calls, [5]))["features"]
    assert features[:, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert (calls, len(cache)) == ([[0]], 2)
    cache.fetch(["e", "f"], [1, 5], _tower(calls, [1, 5]))
    assert calls == [[0]]


def test_an_image_of_more_crops_than_there_is_room_for_pushes_nothing_out() -> None:
    cache = FeatureCache(2 * IMAGE_BYTES, TOKENS, COLUMNS, torch.device("cpu"))
    calls: list[list[int]] = []
    cache.fetch(["a"], [2], _tower(calls, [2]))
    cache.fetch(["b"], [3], _tower(calls, [3]))
    cache.fetch(["a"], [2], _tower(calls, [2]))
    assert calls == [[0], [0]]


def test_one_name_for_images_of_different_sizes_never_gives_rows_that_do_not_fit() -> None:
    cache = FeatureCache(9 * IMAGE_BYTES, TOKENS, COLUMNS, torch.device("cpu"))
    calls: list[list[int]] = []
    assert len(cache.fetch(["a"], [2], _tower(calls, [2]))["features"]) == 2
    assert len(cache.fetch(["a"], [3], _tower(calls, [3]))["features"]) == 3


def test_it_keeps_as_many_columns_as_it_is_told_and_counts_their_bytes() -> None:
    columns = {**COLUMNS, "keys": (2, torch.float32)}
    cache = FeatureCache(2 * IMAGE_BYTES, TOKENS, columns, torch.device("cpu"))
    made = {
        "features": torch.rand(1, TOKENS, WIDTH).bfloat16(),
        "importance": torch.rand(1, TOKENS),
        "keys": torch.rand(1, TOKENS, 2),
    }
    for _ in range(2):
        found = cache.fetch(["a"], [1], lambda _places: made)
        assert all(torch.equal(found[name], made[name]) for name in columns)
    assert (cache.hits, cache.misses) == (1, 1)
    cache.fetch(["b"], [1], lambda _places: made)
    assert len(cache) == 1
