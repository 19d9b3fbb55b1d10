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
            rows = values.repeat_interleave(TOKENS)
            features = rows.unsqueeze(1).expand(-1, WIDTH).bfloat16()
            return {"features": features, "importance": rows + 0.001}

        lengths = [TOKENS] * len(images)
        fetched = self.cache.fetch(list(images), lengths, encode).values()
        features, importance = (rows.unflatten(0, (-1, TOKENS)) for rows in fetched)
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


def _tower(calls: list[list[int]], slots: list[int]) -> Callable[[list[int]], Any]:
    """Every slot of an image a number of its own: ten times the image's place, and its own."""

    def encode(places: list[int]) -> dict[str, torch.Tensor]:
        calls.append(places)
        numbers = [10.0 * place + slot for place in places for slot in range(slots[place])]
        values = torch.tensor(numbers).repeat_interleave(TOKENS)
        features = values.unsqueeze(1).expand(-1, WIDTH).bfloat16()
        return {"features": features, "importance": values}

    return encode


def _fetch(
    cache: FeatureCache, names: str, slots: list[int], calls: list[list[int]]
) -> tuple[list[float], list[float]]:
    """The numbers of all slots, by their features and by their importance."""
    lengths = [TOKENS * each for each in slots]
    found = cache.fetch(list(names), lengths, _tower(calls, slots))
    assert found["importance"].unflatten(0, (-1, TOKENS)).std(dim=1).max() == 0
    return found["features"][::TOKENS, 0].tolist(), found["importance"][::TOKENS].tolist()


def test_images_of_several_slots_are_kept_and_forgotten_as_a_whole() -> None:
    cache = FeatureCache(7 * IMAGE_BYTES, TOKENS, COLUMNS, torch.device("cpu"))
    calls: list[list[int]] = []
    for _ in range(2):
        features, importance = _fetch(cache, "abc", [3, 1, 3], calls)
        assert features == importance == [0, 1, 2, 10, 20, 21, 22]
    assert calls == [[0, 1, 2]]
    # Two slots of d take the place of a, asked for longest ago: e finds room beside it.
    _fetch(cache, "d", [2], calls)
    _fetch(cache, "e", [1], calls)
    assert len(cache) == 4
    calls.clear()
    _fetch(cache, "bcde", [1, 3, 2, 1], calls)
    assert calls == []
    # Room for five is made of b, c and d; one slot stays free.
    assert _fetch(cache, "f", [5], calls)[0] == [0, 1, 2, 3, 4]
    assert (calls, len(cache)) == ([[0]], 2)
    _fetch(cache, "ef", [1, 5], calls)
    assert calls == [[0]]


def test_an_image_of_more_slots_than_there_are_pushes_nothing_out() -> None:
    cache = FeatureCache(2 * IMAGE_BYTES, TOKENS, COLUMNS, torch.device("cpu"))
    calls: list[list[int]] = []
    for name, slots in (("a", 2), ("b", 3), ("a", 2)):
        _fetch(cache, name, [slots], calls)
    assert calls == [[0], [0]]


def test_one_name_for_images_of_different_sizes_never_gives_rows_that_do_not_fit() -> None:
    cache = FeatureCache(9 * IMAGE_BYTES, TOKENS, COLUMNS, torch.device("cpu"))
    calls: list[list[int]] = []
    assert len(_fetch(cache, "a", [2], calls)[0]) == 2
    assert len(_fetch(cache, "a", [3], calls)[0]) == 3


@pytest.mark.parametrize("rows", [1, TOKENS - 1, TOKENS, TOKENS + 1, 3 * TOKENS - 2])
def test_an_image_of_any_length_comes_back_whole(rows: int) -> None:
    """Its last slot is not full; what an image before it left there is not seen."""
    cache = FeatureCache(3 * IMAGE_BYTES, TOKENS, COLUMNS, torch.device("cpu"))
    _fetch(cache, "z", [3], [])
    cache.clear()
    made = {"features": torch.rand(rows, WIDTH).bfloat16(), "importance": torch.rand(rows)}
    for _ in range(2):
        found = cache.fetch(["a"], [rows], lambda _places: made)
        assert all(torch.equal(found[name], made[name]) for name in made)
    assert (cache.hits, cache.misses) == (1, 2)
    assert cache.bytes == -(-rows // TOKENS) * IMAGE_BYTES


def test_it_keeps_as_many_columns_as_it_is_told_and_counts_their_bytes() -> None:
    columns = {**COLUMNS, "keys": (2, torch.float32)}
    cache = FeatureCache(2 * IMAGE_BYTES, TOKENS, columns, torch.device("cpu"))
    made = {
        "features": torch.rand(TOKENS, WIDTH).bfloat16(),
        "importance": torch.rand(TOKENS),
        "keys": torch.rand(TOKENS, 2),
    }
    for _ in range(2):
        found = cache.fetch(["a"], [TOKENS], lambda _places: made)
        assert all(torch.equal(found[name], made[name]) for name in columns)
    assert (cache.hits, cache.misses) == (1, 1)
    cache.fetch(["b"], [TOKENS], lambda _places: made)
    assert len(cache) == 1
