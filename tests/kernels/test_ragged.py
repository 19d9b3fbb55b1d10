"""A padded batch of images of any resolution gives, row by row, what each image gives alone.

The methods' own chain of operators on images of different sizes, with NaN or infinity wherever a
batch has padding. Indices, copies and cosines agree to the bit.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from vtprune_kernels.spec import Spec, all_specs, features

SPECS: dict[str, Spec] = {spec.name: spec for spec in all_specs()}
LENGTHS, LONGEST, WIDTH, HEADS = (20, 1, 33, 0, 8), 33, 24, 2
KEEP = 6
COUNTS = torch.tensor([5, 1, 6, 3, 6], dtype=torch.int32)
VALID = torch.arange(LONGEST) < torch.tensor(LENGTHS)[:, None]
"""`[images, LONGEST]`."""

WAYS = [
    pytest.param(way, garbage, id=f"{way}-{garbage}")
    for way in ("reference", "launcher")
    for garbage in (math.nan, math.inf)
]


def _padded(images: list[torch.Tensor], garbage: float) -> torch.Tensor:
    """`[images, LONGEST, ...]` of images of `[n, ...]`."""
    batch = torch.full((len(images), LONGEST, *images[0].shape[1:]), garbage)
    for place, image in zip(batch, images, strict=True):
        place[: len(image)] = image
    return batch


def _padded_grams(grams: list[torch.Tensor], garbage: float) -> torch.Tensor:
    batch = torch.full((len(grams), LONGEST, LONGEST), garbage)
    for place, gram in zip(batch, grams, strict=True):
        place[: len(gram), : len(gram)] = gram
    return batch


def _rows(width: int = WIDTH, seed: int = 0) -> list[torch.Tensor]:
    return [
        features("clustered", (1, n, width), torch.float32, "cpu", seed + i)[0]
        for i, n in enumerate(LENGTHS)
    ]


def _grams() -> list[torch.Tensor]:
    return [SPECS["cosine_gram"].reference(rows[None])[0] for rows in _rows()]


def _kept_alone(run: Any, image: int, *arguments: Any, **options: Any) -> list[int]:
    """What one image keeps, with -1 up to the width of the batch's result."""
    number = min(KEEP, LENGTHS[image], int(COUNTS[image]))
    alone = run(*arguments, number, **options)[0].tolist() if number else []
    return [*alone, *[-1] * (KEEP - number)]


@pytest.mark.parametrize(("way", "garbage"), WAYS)
@pytest.mark.usefixtures("interpreted", "poisoned")
def test_top_k_sorted(way: str, garbage: float) -> None:
    run, scores = getattr(SPECS["top_k_sorted"], way), [rows[:, 0] for rows in _rows()]
    together = run(_padded(scores, garbage), KEEP, VALID, COUNTS)
    for image, score in enumerate(scores):
        assert together[image].tolist() == _kept_alone(run, image, score[None])


@pytest.mark.parametrize("step", [1, 4])
@pytest.mark.parametrize(("way", "garbage"), WAYS)
@pytest.mark.usefixtures("interpreted", "poisoned")
def test_dedup(way: str, garbage: float, step: int) -> None:
    run, grams = getattr(SPECS["dedup"], way), _grams()
    together = run(_padded_grams(grams, garbage), KEEP, step, VALID, COUNTS)
    for image, gram in enumerate(grams):
        assert together[image].tolist() == _kept_alone(run, image, gram[None], step=step)


@pytest.mark.parametrize("objective", ["max-min", "coverage", "demand", "dpp"])
@pytest.mark.parametrize(("way", "garbage"), WAYS)
@pytest.mark.usefixtures("interpreted", "poisoned")
def test_greedy_select(way: str, garbage: float, objective: str) -> None:
    run, grams = getattr(SPECS["greedy_select"], way), _grams()
    weights = [rows[:, 1].abs().clamp(max=1.0) / LONGEST for rows in _rows(seed=50)]
    together = run(
        _padded_grams(grams, garbage), KEEP, objective, _padded(weights, garbage), VALID, COUNTS
    )
    for image, (gram, weight) in enumerate(zip(grams, weights, strict=True)):
        options = {"objective": objective, "weight": weight[None]}
        assert together[image].tolist() == _kept_alone(run, image, gram[None], **options)


@pytest.mark.parametrize(("way", "garbage"), WAYS)
@pytest.mark.usefixtures("interpreted", "poisoned")
def test_cosine_gram(way: str, garbage: float) -> None:
    run, images = getattr(SPECS["cosine_gram"], way), _rows()
    together = run(_padded(images, garbage), valid=VALID)
    for found, rows in zip(together, images, strict=True):
        n = len(rows)
        assert torch.equal(found[:n, :n], run(rows[None])[0])
        assert not found[n:].any() and not found[:, n:].any()


@pytest.mark.parametrize("mask", ["all", "before", "opposite"])
@pytest.mark.parametrize(("way", "garbage"), WAYS)
@pytest.mark.usefixtures("interpreted", "poisoned")
def test_row_max_cosine(way: str, garbage: float, mask: str) -> None:
    run, images = getattr(SPECS["row_max_cosine"], way), _rows()
    best, index = run(_padded(images, garbage), mask=mask, valid=VALID)
    for image, rows in enumerate(images):
        n = len(rows)
        alone = run(rows[None], mask=mask)
        assert torch.equal(best[image, :n], alone[0][0])
        assert torch.equal(index[image, :n], alone[1][0])
        assert best[image, n:].isneginf().all() and (index[image, n:] == -1).all()


@pytest.mark.parametrize(("way", "garbage"), WAYS)
@pytest.mark.usefixtures("interpreted", "poisoned")
def test_gather_rows(way: str, garbage: float) -> None:
    run, images = getattr(SPECS["gather_rows"], way), _rows()
    kept = [list(range(0, n, 3))[:KEEP] for n in LENGTHS]
    table = torch.tensor([[*some, *[-1] * (KEEP - len(some))] for some in kept])
    out = [torch.empty(len(LENGTHS), KEEP, WIDTH)]
    (together,) = run([_padded(images, garbage)], table, out)
    for found, rows, some in zip(together, images, kept, strict=True):
        assert torch.equal(found[: len(some)], rows[some])
        assert not found[len(some) :].any()


@pytest.mark.parametrize(("way", "garbage"), WAYS)
@pytest.mark.usefixtures("interpreted", "poisoned")
def test_cls_importance(way: str, garbage: float) -> None:
    """To the bit in the kernels; torch's softmax adds in an order that the width sets."""
    run, width = getattr(SPECS["cls_importance"], way), HEADS * 16
    first = features("random", (2, len(LENGTHS), 1, width), torch.float32, "cpu")
    images = [_rows(width, 20), _rows(width, 40)]
    query, key = (
        torch.cat([cls, _padded(rows, garbage)], dim=1)
        for cls, rows in zip(first, images, strict=True)
    )
    together = run(query, key, HEADS, 0.2, valid=VALID)
    for image, n in enumerate(LENGTHS):
        end = slice(image, image + 1), slice(0, n + 1)
        alone = run(query[end], key[end], HEADS, 0.2)[0]
        atol = 0.0 if way == "launcher" else 1e-7
        torch.testing.assert_close(together[image, :n], alone, rtol=0, atol=atol)
        assert not together[image, n:].any()


@pytest.mark.parametrize(("way", "garbage"), WAYS)
@pytest.mark.usefixtures("interpreted", "poisoned")
def test_text_relevance(way: str, garbage: float) -> None:
    """As in `cls_importance`: the reference to the rounding of a softmax's sum."""
    run, images = getattr(SPECS["text_relevance"], way), _rows()
    text = features("random", (4, WIDTH), torch.float32, "cpu", 9)
    count = len(LENGTHS)
    places, words = torch.arange(count + 1) * LONGEST, torch.arange(count + 1) * 4
    together = run(
        _padded(images, garbage).flatten(0, 1),
        text.repeat(count, 1),
        places,
        words,
        valid=VALID.flatten(),
    ).view(count, LONGEST)
    for found, rows in zip(together, images, strict=True):
        n = len(rows)
        alone = run(rows, text, torch.tensor([0, n]), torch.tensor([0, 4]))
        atol = 0.0 if way == "launcher" else 1e-6
        torch.testing.assert_close(found[:n], alone, rtol=0, atol=atol)
        assert not found[n:].any()
