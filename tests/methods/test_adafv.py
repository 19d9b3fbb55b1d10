"""AdaFV against its formula, and against what it is for: a question about a faint token."""

from __future__ import annotations

import math

import pytest
import torch

import vllm_pruner
from vllm_pruner.methods.adafv import AdaFVOptions, lists
from vllm_pruner.methods.base import VisualTokens

N, WIDTH = 200, 48


def _inputs(seed: int, texts: tuple[int, ...]) -> dict[str, object]:
    generator = torch.Generator().manual_seed(seed)
    images = len(texts)
    return {
        "features": torch.randn(images, N, 8, generator=generator),
        "importance": torch.rand(images, N, generator=generator).pow(4),
        "projected": torch.randn(images, N, WIDTH, generator=generator),
        "text": [torch.randn(length, WIDTH, generator=generator) for length in texts],
    }


def _literal(
    importance: list[float],
    projected: list[list[float]],
    text: list[list[float]],
    keep: int,
    reserve: float = 0.25,
    temperature: float = 0.01,
) -> list[int]:
    """The header's formula for one image, in Python floats."""

    def cosine(a: list[float], b: list[float]) -> float:
        dot = math.fsum(x * y for x, y in zip(a, b, strict=True))
        return dot / (math.hypot(*a) * math.hypot(*b))

    t = [0.0] * len(projected)
    for word in text:
        weights = [math.exp(cosine(word, row) / temperature - 100) for row in projected]
        t = [max(old, weight / sum(weights)) for old, weight in zip(t, weights, strict=True)]
    if not text:
        t = importance
    t, c = ([score / sum(scores) for score in scores] for scores in (t, importance))
    by_t, by_c = (sorted(range(len(s)), key=lambda j, s=s: (-s[j], j)) for s in (t, c))
    q = math.floor(reserve * keep)
    free = keep - 2 * q

    def mass(k: int) -> float:
        return sum(t[j] for j in by_t[q : q + k]) * sum(c[j] for j in by_c[q : q + free - k])

    won = max(range(free + 1), key=mass)
    chosen = set(by_t[: q + won]) | set(by_c[: q + free - won])
    rest = sorted(set(range(len(t))) - chosen, key=lambda j: (-max(t[j], c[j]), j))
    return sorted([*chosen, *rest[: keep - len(chosen)]])


@pytest.mark.parametrize("keep", [0, 1, 2, 3, 4, 7, 16, 50, 199, 200])
def test_it_is_the_formula(keep: int) -> None:
    inputs = _inputs(0, (5, 1, 0))
    kept = vllm_pruner.select("adafv", keep=keep, **inputs)
    importance, projected = (inputs[name].double().tolist() for name in ("importance", "projected"))
    for image in range(3):
        text = inputs["text"][image].double().tolist()
        expected = _literal(importance[image], projected[image], text, keep)
        assert kept[image].tolist() == expected


def test_options_are_the_formulas() -> None:
    inputs = _inputs(1, (4,))
    options = {"reserve": 0.1, "temperature": 0.05}
    (kept,) = vllm_pruner.select("adafv", keep=30, **inputs, **options)
    (importance,), (projected,) = (inputs[n].double().tolist() for n in ("importance", "projected"))
    text = inputs["text"][0].double().tolist()
    assert kept.tolist() == _literal(importance, projected, text, 30, **options)


@pytest.mark.parametrize("keep", [4, 8, 16, 64, 128])
def test_a_faint_token_that_the_question_asks_for_is_kept(keep: int) -> None:
    """The salient half has nothing to do with the question; one faint token matches it."""
    inputs = _inputs(2, (6,))
    inputs["importance"][:, : N // 2] += 100.0
    faint = 170
    inputs["text"][0][3] = inputs["projected"][0, faint] * 1.5
    (kept,) = vllm_pruner.select("adafv", keep=keep, **inputs).tolist()
    assert faint in kept
    without_text = {name: inputs[name] for name in ("features", "importance")}
    if keep <= N // 2:
        (kept,) = vllm_pruner.select("attention", keep=keep, **without_text).tolist()
        assert faint not in kept
    (kept,) = vllm_pruner.select("vispruner", keep=4, **without_text).tolist()
    assert faint not in kept


def test_the_split_follows_the_sharper_list() -> None:
    """Relevance in 4 tokens, saliency spread evenly: the even list gets nearly all free places."""
    inputs = _inputs(3, (4,))
    inputs["importance"][:] = 1.0
    for word in range(4):
        inputs["text"][0][word] = inputs["projected"][0, 100 + word]
    (kept,) = vllm_pruner.select("adafv", keep=40, reserve=0.0, **inputs).tolist()
    assert set(range(100, 104)) <= set(kept)
    assert len([token for token in kept if token < 40]) >= 35


def test_an_image_without_text_is_ranked_by_saliency_alone() -> None:
    inputs = _inputs(4, (0, 3))
    kept = vllm_pruner.select("adafv", keep=20, **inputs)
    salient = vllm_pruner.select(
        "attention", keep=20, features=inputs["features"], importance=inputs["importance"]
    )
    assert kept[0].tolist() == salient[0].tolist()
    assert kept[1].tolist() != salient[1].tolist()


def test_scaling_saliency_changes_nothing() -> None:
    inputs = _inputs(5, (5,))
    scaled = {**inputs, "importance": inputs["importance"] * 1024.0}
    kept = vllm_pruner.select("adafv", keep=24, **inputs)
    assert torch.equal(vllm_pruner.select("adafv", keep=24, **scaled), kept)


def test_a_word_that_matches_exactly_leaves_the_others_their_shares() -> None:
    """Its token's relevance is above all others' by 2**40, and in one of the reserved places."""
    inputs = _inputs(7, (1,))
    inputs["text"][0][0] = inputs["projected"][0, 60]
    options = {"reserve": 0.25, "temperature": 0.015}
    (kept,) = vllm_pruner.select("adafv", keep=40, **inputs, **options)
    (importance,), (projected,) = (inputs[n].double().tolist() for n in ("importance", "projected"))
    text = inputs["text"][0].double().tolist()
    assert kept.tolist() == _literal(importance, projected, text, 40, **options)


def test_of_equal_splits_relevance_gets_less() -> None:
    """Lists of 2x, x and zeros: 2x * (2x + x) = (2x + x) * 2x, whatever x is in float32."""
    x = torch.rand(100, generator=torch.Generator().manual_seed(8))
    importance = torch.zeros(100, 8)
    importance[:, 3], importance[:, 5] = 2 * x, x
    rows = torch.zeros(100, 8, 4)
    tokens = VisualTokens(rows, importance, projected=rows, text=[rows[0, :0]] * 100)
    relevant, salient = lists(tokens, 3, AdaFVOptions(reserve=0.0)).chosen.sum(dim=2)
    assert (relevant == 1).all()
    assert (salient == 2).all()


def test_missing_text_is_named() -> None:
    inputs = _inputs(6, (2,))
    del inputs["text"]
    with pytest.raises(ValueError, match="text is missing; method 'adafv' matches tokens with"):
        vllm_pruner.select("adafv", keep=3, **inputs)
