"""Triad against its formula, step by step in float64, and what each third of it is there for."""

from __future__ import annotations

import pytest
import torch
from drawn_tokens import COUNTS, KINDS, best, cosines, draw, keeps

import vllm_pruner


def relevance(tokens: torch.Tensor, text: torch.Tensor) -> list[float]:
    total = [0.0] * len(tokens)
    for word in text:
        cosine = cosines(word[None], tokens)[0].tolist()
        mean = sum(cosine) / len(cosine)
        # In multiples of 2**-16, as in the method: the spread of a constant is nothing.
        away = [round((c - mean) * 2**16) / 2**16 for c in cosine]
        above = [max(a, 0.0) ** 2 for a in away]
        if not any(above):
            continue
        second, third = (sum(a**p for a in away) / len(away) for p in (2, 3))
        skew = max(third, 0.0) / second**1.5
        total = [r + skew * a / sum(above) for r, a in zip(total, above, strict=True)]
    return total


def triad(given: dict, image: int, keep: int) -> list[int]:
    tokens, importance = given["projected"][image], given["importance"][image].tolist()
    asked = relevance(tokens, given["text"][image])
    weight = torch.tensor(
        [
            (a / sum(importance) + (r / sum(asked) if any(asked) else 0.0) + 1 / len(tokens)) / 3
            for a, r in zip(importance, asked, strict=True)
        ]
    )
    similar = cosines(tokens, tokens)
    cover, kept = torch.zeros(len(tokens)).double(), []
    while len(kept) < keep:
        gain = (weight.double()[:, None] * (similar - cover[:, None]).clamp_min(0)).sum(dim=0)
        kept.append(best(gain.round(decimals=7), kept))
        cover = torch.maximum(cover, similar[:, kept[-1]])
    return sorted(kept)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tokens", COUNTS)
def test_it_is_the_formula(kind, tokens) -> None:
    given = draw(kind, 1 if tokens > 64 else 2, tokens)
    for keep in keeps(tokens):
        kept = vllm_pruner.select("triad", keep=keep, **given).tolist()
        assert kept == [triad(given, image, keep) for image in range(len(kept))], keep


def test_a_shorter_text_beside_it_changes_nothing() -> None:
    given = draw("random", 3, 64, words=9)
    given["text"] = [given["text"][0], given["text"][1][:2], given["text"][2][:0]]
    kept = vllm_pruner.select("triad", keep=20, **given).tolist()
    assert kept == [triad(given, image, 20) for image in range(3)]


def planted() -> tuple[torch.Tensor, torch.Tensor]:
    """A texture of one direction in noise; three tokens (10, 20, 30) of their own, salient alike;
    two (40, 50) of a name. And the words: the name, and one that is nearly the texture's."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.eye(64)
    tokens = axes[0] + 0.02 * torch.randn(64, 64, generator=generator)
    tokens[[10, 20, 30]] = axes[1] + 0.02 * torch.randn(3, 64, generator=generator)
    tokens[40], tokens[50] = axes[2] + axes[3], axes[2] + axes[4]
    return tokens, torch.stack([axes[2], axes[0] + axes[9]])


def test_each_claim_is_answered_once() -> None:
    """Four tokens: one of the texture, one of three that look alike, both of the named thing.
    Attention alone takes the three; the words' best matches are texture, too."""
    tokens, words = planted()
    importance = torch.full((64,), 0.001)
    importance[[10, 20, 30]] = 0.3
    given = {"features": tokens, "projected": tokens, "text": words, "importance": importance}
    kept = set(vllm_pruner.select("triad", keep=4, **given).tolist())
    assert {40, 50} <= kept
    assert len(kept & {10, 20, 30}) == 1
    assert set(vllm_pruner.select("attention", keep=4, features=tokens, importance=importance)
               .tolist()) >= {10, 20, 30}  # fmt: skip


def test_words_that_match_everything_alike_have_no_say() -> None:
    tokens, words = planted()
    given = {"features": tokens, "projected": tokens, "importance": torch.ones(64)}
    asked = vllm_pruner.select("triad", keep=6, text=words, **given)
    even = torch.zeros(5, 64)
    more = torch.cat([words, even])
    assert torch.equal(vllm_pruner.select("triad", keep=6, text=more, **given), asked)
