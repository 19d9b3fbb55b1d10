"""DivPrune, SCOPE and CDPruner against their formulas, step by step in float64."""

from __future__ import annotations

import pytest
import torch
from drawn_tokens import COUNTS, KINDS, best, cosines, draw, keeps

import vllm_pruner

every_input = pytest.mark.parametrize(
    "kind, tokens", [(kind, tokens) for kind in KINDS for tokens in COUNTS]
)


def divprune(given: dict, image: int, keep: int) -> list[int]:
    rows = given["projected"][image]
    distance = 1 - cosines(rows, rows)
    near = distance.masked_fill(torch.eye(len(rows), dtype=torch.bool), torch.inf).amin(dim=1)
    kept: list[int] = []
    while len(kept) < keep:
        kept.append(best(near.round(decimals=12), kept))
        near = distance[:, kept].amin(dim=1)
    return sorted(kept)


def scope(given: dict, image: int, keep: int, alpha: float = 1.0) -> list[int]:
    similar = cosines(given["features"][image], given["features"][image])
    cover, kept = torch.zeros(len(similar)).double(), []
    while len(kept) < keep:
        gain = (similar - cover[:, None]).clamp_min(0).sum(dim=0)
        gain = gain * given["importance"][image].double() ** alpha
        kept.append(best(gain.round(decimals=6), kept))
        cover = torch.maximum(cover, similar[:, kept[-1]])
    return sorted(kept)


def cdpruner(given: dict, image: int, keep: int) -> list[int]:
    rows, text = given["projected"][image], given["text"][image]
    mean = cosines(rows, text).mean(dim=1) if len(text) else torch.zeros(len(rows)).double()
    # The cosine to the mean direction: the factor between the two is lost in scaling.
    units = text.double() / text.double().norm(dim=1, keepdim=True)
    mean = mean / units.mean(dim=0).norm() if len(text) else mean
    spread = mean.max() - mean.min()
    relevance = (mean - mean.min() + 1e-6) / (spread + 1e-6)
    kernel = relevance[:, None] * cosines(rows, rows) * relevance[None, :]
    rest, kept = kernel.diagonal().clone(), []
    columns = rest.new_zeros(keep, len(rest))
    while len(kept) < keep:
        open_rest = rest.where(rest > 1e-6, 0.0)
        pick = best(open_rest.round(decimals=9), kept)
        kept.append(pick)
        e = kernel[pick] - columns[:, pick] @ columns
        e = e / open_rest[pick].sqrt() if open_rest[pick] > 0 else torch.zeros_like(e)
        columns[len(kept) - 1] = e
        rest = rest - e**2
    return sorted(kept)


@every_input
@pytest.mark.parametrize("literal", [divprune, scope, cdpruner], ids=lambda f: f.__name__)
def test_it_is_the_formula(literal, kind, tokens) -> None:
    given = draw(kind, 1 if tokens > 64 else 2, tokens)
    for keep in keeps(tokens):
        kept = vllm_pruner.select(literal.__name__, keep=keep, **given).tolist()
        assert kept == [literal(given, image, keep) for image in range(len(kept))], keep


@pytest.mark.parametrize("alpha", [0.0, 0.5, 2.0])
def test_scopes_option_is_the_exponent_of_saliency(alpha) -> None:
    given = draw("random", 2, 64)
    kept = vllm_pruner.select("scope", keep=20, **given, alpha=alpha)
    assert kept.tolist() == [scope(given, image, 20, alpha) for image in range(2)]


def test_without_text_cdpruner_looks_for_differences_alone() -> None:
    given = draw("random", 2, 64, words=0)
    kept = vllm_pruner.select("cdpruner", keep=16, **given)
    assert kept.tolist() == [cdpruner(given, image, 16) for image in range(2)]
    asked = draw("random", 2, 64)
    mixed = {**given, "text": [given["text"][0], asked["text"][1]]}
    both = vllm_pruner.select("cdpruner", keep=16, **mixed)
    assert both[0].tolist() == kept[0].tolist()
    assert both[1].tolist() == cdpruner(asked, 1, 16) != kept[1].tolist()


@pytest.mark.parametrize("name", ["divprune", "scope", "cdpruner"])
def test_no_duplicate_is_kept_before_every_kind_is(name) -> None:
    """Five kinds of equal tokens: the first five kept are one of each."""
    given = draw("clustered", 1, 64, words=0)
    kept = vllm_pruner.select(name, keep=5, **given)[0]
    field = "features" if name == "scope" else "projected"
    assert len(set(map(tuple, given[field][0, kept].tolist()))) == 5


def test_cdpruner_keeps_what_the_question_asks_for() -> None:
    """Scaled relevance is a weight: what the text resembles least weighs next to nothing."""
    given = draw("random", 1, 64)
    given["text"] = [given["projected"][0, 50:51] * 3.0]
    (kept,) = vllm_pruner.select("cdpruner", keep=1, **given).tolist()
    assert kept == [50]
