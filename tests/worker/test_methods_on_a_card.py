"""Methods, the feature cache and calls of other packages on a GPU that is not there, without a
model: what a CPU gives in batches of any composition, no order that is not there, and no wait."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from drawn_tokens import draw
from pretend_cuda import pretend_gpu
from pretend_tensor import CARD, OnCard, host

from vllm_pruner import methods
from vllm_pruner.methods import contract
from vllm_pruner.methods.base import Kept, Method, Options, VisualTokens
from vllm_pruner.methods.on_device import sent
from vllm_pruner.methods.ragged import Ragged
from vllm_pruner.methods.texts import Texts
from vllm_pruner.worker.attempt import Attempt
from vllm_pruner.worker.coverage import coverage
from vllm_pruner.worker.feature_cache import FeatureCache

TOKENS, KEEP = 36, 7
OF_IMAGES = sorted({*methods.built_in()} - {"evs", "vidcom2", "resize"})
TEXTS = {"words": (3, 3, 3), "unequal": (5, 0, 1), "none": (0, 0, 0)}
"""Words behind each image of a batch."""


def _tokens(name: str, images: int, words: tuple[int, ...]) -> VisualTokens:
    """What a method reads of some images, on the host."""
    made = draw("random", images, TOKENS, max(1, *words))
    texts = [text[:length] for text, length in zip(made["text"], words, strict=False)]
    made["text"] = Texts.of(texts, made["projected"])
    needs = {"features", *methods.get(name).needs}
    return VisualTokens(**{key: value for key, value in made.items() if key in needs})


def _on_card(tokens: VisualTokens) -> VisualTokens:
    """The same on the card."""
    values = {field.name: getattr(tokens, field.name) for field in fields(tokens)}
    moved = {key: sent(it, CARD) for key, it in values.items() if isinstance(it, torch.Tensor)}
    if isinstance(texts := tokens.text, Texts):
        assert texts.lengths is not None
        moved["text"] = Texts.cut(sent(texts.rows, CARD), texts.lengths)
    return replace(tokens, **moved)


def _assert_alike(found: Kept, expected: Kept) -> None:
    assert isinstance(found.index, OnCard)
    assert torch.equal(host(found.index), expected.index)
    assert (found.rows is None) == (expected.rows is None)
    if expected.rows is not None:
        assert torch.equal(host(found.rows), expected.rows)


@pytest.mark.parametrize("name", OF_IMAGES)
def test_a_method_chooses_on_a_card_what_it_does_on_a_cpu(name: str) -> None:
    method = methods.get(name)
    options = method.options()
    with torch.inference_mode():
        for images, keep in ((1, KEEP), (3, KEEP), (3, 1), (2, TOKENS - 1)):
            for words in TEXTS.values() if method.needs_text else [TEXTS["words"]]:
                tokens = _tokens(name, images, words[:images])
                expected = method.choose(tokens, keep, options)
                with pretend_gpu() as card:
                    found = method.choose(_on_card(tokens), keep, options)
                    assert not card.waits, (images, keep, words)
                _assert_alike(found, expected)


@pytest.mark.parametrize("name", [name for name in OF_IMAGES if methods.get(name).ragged])
def test_images_of_unequal_length_in_one_call(name: str) -> None:
    """What is behind the shorter ones is memory that nobody has written."""
    method, sizes = methods.get(name), ([TOKENS, 20, 9], [KEEP, 5, 8])
    options = method.options()
    with torch.inference_mode():
        tokens = replace(_tokens(name, 3, (3, 1, 0)), grid=None)
        expected = method.choose(
            replace(tokens, ragged=Ragged.of(*sizes, torch.device("cpu"))), max(sizes[1]), options
        )
        with pretend_gpu() as card:
            ragged = replace(_on_card(tokens), ragged=Ragged.of(*sizes, CARD))
            for value in (getattr(ragged, each.name) for each in fields(ragged)):
                if isinstance(value, OnCard):
                    for row, length in zip(value, sizes[0], strict=True):
                        row[length:] = torch.nan
            found = method.choose(ragged, max(sizes[1]), options)
            assert not card.waits
        _assert_alike(found, expected)


@pytest.mark.parametrize("name", ["evs", "vidcom2"])
def test_a_method_that_compares_frames(name: str) -> None:
    with torch.inference_mode():
        for videos in (1, 3):
            tokens = replace(_tokens(name, videos, (3,) * videos), frames=4)
            expected = methods.get(name).choose(tokens, KEEP, Options())
            with pretend_gpu() as card:
                found = methods.get(name).choose(_on_card(tokens), KEEP, Options())
                assert not card.waits
            _assert_alike(found, expected)


def test_the_cache_gives_what_was_encoded_after_hits_and_evictions() -> None:
    columns = {"features": (3, torch.float32), "importance": (0, torch.float32)}
    page, room = 4, 3
    with torch.inference_mode(), pretend_gpu() as card:
        cache = FeatureCache(room * page * 16, page, columns, CARD)

        def rows(images: str) -> dict[str, torch.Tensor]:
            numbers = torch.tensor([float(ord(each)) for each in images]).repeat_interleave(page)
            return {"features": numbers.unsqueeze(1).expand(-1, 3), "importance": numbers + 0.5}

        for asked in ("ab", "ba", "bcad", "aa", "dcba", "abcde", "e"):

            def encode(places: list[int], asked: str = asked) -> dict[str, torch.Tensor]:
                made = rows("".join(asked[place] for place in places))
                return {name: sent(each, CARD) for name, each in made.items()}

            found = cache.fetch([*asked], [page] * len(asked), encode)
            for name, each in rows(asked).items():
                assert torch.equal(host(found[name]), each), (asked, name)
        assert cache.hits and len(cache) == room and not card.waits


def test_coverage_waits_for_nothing() -> None:
    features = draw("random", 2, TOKENS)["features"]
    kept, newline = torch.tensor([[0, 5, 9], [1, 2, 30]]), torch.zeros(2, 3, dtype=torch.bool)
    expected = coverage(features, kept, newline)
    with torch.inference_mode(), pretend_gpu() as card:
        found = coverage(*(sent(each, CARD) for each in (features, kept, newline)))
        assert not card.waits
    assert torch.equal(host(found), expected)


def test_another_packages_method_runs_on_the_stream_of_the_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a thread of its own, which would begin on the default stream."""
    monkeypatch.setattr(contract, "shape_fault", lambda *_: None)  # it takes no subclass of tensors
    streams: list[Any] = []

    def select(tokens: VisualTokens, keep: int, options: Options) -> torch.Tensor:
        streams.append(torch.cuda.current_stream())
        assert torch.is_inference_mode_enabled()
        return tokens.features.sum(dim=2).topk(keep, dim=1).indices.sort(dim=1).values

    features = draw("random", 2, TOKENS)["features"]
    with torch.inference_mode(), pretend_gpu() as card:
        tokens = VisualTokens(sent(features, CARD) * 2)
        attempt = Attempt()
        kept = attempt(Method("uniform", select), tokens, KEEP, Options())
        assert streams == [torch.cuda.current_stream()] and not attempt.faults
        assert card.waits == ["tolist in vllm_pruner.methods.contract:faults"]
        kept.index.add(1)
    expected = features.sum(dim=2).topk(KEEP, dim=1).indices.sort(dim=1).values
    assert torch.equal(host(kept.index), expected)
