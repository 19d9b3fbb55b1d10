"""The texts of a batch: what methods of other packages see, what ours read, and what a CUDA graph
replays."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from drawn_tokens import WIDTH, draw, rows

from vllm_pruner import methods
from vllm_pruner.methods.base import Method, VisualTokens
from vllm_pruner.methods.ragged import Ragged
from vllm_pruner.methods.texts import Texts
from vllm_pruner.worker.attempt import Attempt
from vllm_pruner.worker.recorder import HostFree

LENGTHS, KEEPS, WORDS = (40, 12, 33, 1), (9, 12, 4, 1), (3, 0, 7, 1)
READERS = [name for name in methods.built_in() if methods.get(name).needs_text]
RAGGED = [name for name in READERS if methods.get(name).ragged]
COLUMNS = ("features", "importance", "projected", "keys", "received", "received_midway")


def _texts() -> list[torch.Tensor]:
    """Like those of a decoder, words and tokens have a direction in common."""
    return list((rows("random", sum(WORDS), WIDTH, seed=5) + 0.5).split(WORDS))


def _buffer(texts: list[torch.Tensor], garbage: float) -> Texts:
    """A graph's: larger than the texts, and nothing of their lengths on the host."""
    packed = Texts.of(texts, texts[0])
    room = torch.full((packed.ends[-1] + 5, WIDTH), garbage)
    room[:-5] = packed.rows
    return Texts(room, packed.ends, packed.longest + 3)


def _alone(image: int) -> VisualTokens:
    drawn = draw("random", 1, LENGTHS[image], seed=image)
    own = {"projected": drawn["projected"] + 0.5, "text": _texts()[image : image + 1]}
    return VisualTokens(**{**drawn, **own, "grid": None})


def _padded(garbage: float) -> VisualTokens:
    """The images in one batch."""
    fields: dict[str, Any] = {}
    for name in COLUMNS:
        columns = [getattr(_alone(image), name)[0] for image in range(len(LENGTHS))]
        whole = torch.full((len(LENGTHS), max(LENGTHS), *columns[0].shape[1:]), garbage)
        for place, column in zip(whole, columns, strict=True):
            place[: len(column)] = column
        fields[name] = whole
    ragged = Ragged.of(LENGTHS, KEEPS, torch.device("cpu"))
    return VisualTokens(**fields, text=_buffer(_texts(), garbage), ragged=ragged)


def _chosen(name: str, tokens: VisualTokens, keep: int) -> torch.Tensor:
    method = methods.get(name)
    return method.choose(tokens, keep, method.options()).index


@pytest.mark.parametrize("made", [Texts.of, lambda texts, _: _buffer(texts, math.nan)])
def test_they_are_a_sequence_of_tensors(made: Any) -> None:
    texts = _texts()
    packed = made(texts, texts[0])
    assert len(packed) == 4
    assert all(map(torch.equal, packed, texts))
    assert torch.equal(packed[-2], texts[2])
    assert all(map(torch.equal, packed[1:3], texts[1:3]))
    assert packed.exist().tolist() == [True, False, True, True]
    assert packed.owners().tolist()[:11] == [0] * 3 + [2] * 7 + [3]
    assert set(packed.owners().tolist()[11:]) <= {4}
    padded, exists = packed.padded()
    assert exists.sum(dim=1).tolist() == list(WORDS)
    assert torch.equal(padded[exists], packed.rows[:11])
    assert not padded[~exists].any()


def test_packed_texts_are_not_packed_again() -> None:
    packed = Texts.of(_texts(), torch.empty(0, WIDTH))
    assert Texts.of(packed, packed.rows) is packed


@pytest.mark.parametrize("texts", [[], [torch.zeros(0, WIDTH)] * 2])
def test_there_may_be_none(texts: list[torch.Tensor]) -> None:
    packed = Texts.of(texts, torch.empty(3, WIDTH, dtype=torch.bfloat16))
    assert [text.shape for text in packed] == [text.shape for text in texts]
    assert packed.rows.shape == (0, WIDTH)
    assert packed.padded()[0].shape == (len(texts), 0, WIDTH)


def test_a_method_of_another_package_gets_a_tensor_for_each_image() -> None:
    """One by one too, after it has failed for the batch."""
    seen: list[list[int]] = []

    def select(tokens: VisualTokens, keep: int, _: Any) -> torch.Tensor:
        assert tokens.text is not None
        seen.append([len(text) for text in tokens.text])
        assert len(seen) > 1
        return torch.arange(keep).repeat(len(tokens.features), 1)

    method = Method("uniform", select)
    tokens = VisualTokens(torch.zeros(4, 8, 2), text=Texts.of(_texts(), torch.empty(0, WIDTH)))
    attempt = Attempt()
    attempt(method, tokens, 2, method.options())
    assert not attempt.faults
    assert seen == [[*WORDS], [3], [0], [7], [1]]


@pytest.mark.parametrize("garbage", [math.nan, math.inf, 1e30, -1e30])
@pytest.mark.parametrize("name", READERS)
def test_what_follows_the_last_text_changes_nothing(name: str, garbage: float) -> None:
    texts = _texts()
    tokens = VisualTokens(**{**draw("random", 4, 24, seed=3), "text": texts})
    in_buffer = replace(tokens, text=_buffer(texts, garbage))
    assert torch.equal(_chosen(name, in_buffer, 7), _chosen(name, tokens, 7))


@pytest.mark.parametrize("name", READERS)
def test_the_host_takes_no_part(name: str) -> None:
    tokens = VisualTokens(**draw("random", 4, 24, seed=3))
    tokens = replace(tokens, text=_buffer(_texts(), math.nan))
    with HostFree():
        _chosen(name, tokens, 7)


@pytest.mark.parametrize("garbage", [math.nan, math.inf, 1e30, -1e30])
@pytest.mark.parametrize("name", RAGGED)
def test_what_padding_contains_changes_nothing(name: str, garbage: float) -> None:
    tokens = _padded(garbage)
    with HostFree():
        kept = _chosen(name, tokens, max(KEEPS))
    for image, keep in enumerate(KEEPS):
        alone = _chosen(name, _alone(image), keep)[0].tolist()
        assert kept[image].tolist() == [*alone, *[-1] * (max(KEEPS) - keep)]


@pytest.mark.parametrize("name", RAGGED)
def test_a_place_without_an_image_keeps_nothing(name: str) -> None:
    """Of a graph that is larger than the batch: neither tokens nor a text."""
    tokens = _padded(math.nan)
    assert isinstance(tokens.text, Texts) and tokens.ragged is not None
    ends = tokens.text.ends.clone()
    ends[3:] = ends[2]
    empty = torch.tensor([1, 1, 0, 0])
    ragged = Ragged(tokens.ragged.lengths * empty, tokens.ragged.keeps * empty, 9)
    kept = _chosen(
        name, replace(tokens, text=replace(tokens.text, ends=ends), ragged=ragged), max(KEEPS)
    )
    assert torch.equal(kept[:2], _chosen(name, tokens, max(KEEPS))[:2])
    assert (kept[2:] == -1).all()
