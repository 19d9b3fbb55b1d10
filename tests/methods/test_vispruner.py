"""VisPruner against a literal transcription of its published definition, in float64 lists."""

from __future__ import annotations

import math
from random import Random

import pytest
import torch

import vllm_pruner


def cosines(rows: list[list[float]]) -> list[list[float]]:
    """Cosine of every pair; a row of zeros has none, which counts as 0."""
    norms = [math.sqrt(math.fsum(x * x for x in row)) for row in rows]
    units = [[x / n for x in row] if n else row for row, n in zip(rows, norms, strict=True)]
    return [[math.fsum(map(float.__mul__, u, v)) for v in units] for u in units]


def literal(
    cosine: list[list[float]], importance: list[float], keep: int, ratio: float, step: int
) -> tuple[list[int], float]:
    """The kept tokens, and the smallest difference that decided an order anywhere on the way.

    Exact ties do not count into the difference: they go to the lower index or earlier position.
    """
    order = sorted(range(len(importance)), key=lambda j: (-importance[j], j))
    important = math.floor(keep * ratio)
    diverse, pool = keep - important, order[important:]
    margin = math.inf
    while diverse > 0:
        a, b = pool[0::2], pool[1::2]
        r = min(step, len(pool) - diverse, len(a))
        if r <= 0:
            break
        best = {i: max(cosine[i][j] for j in b) for i in a}
        a.sort(key=lambda i: -best[i])
        for i, following in zip(a, a[1:], strict=False):
            margin = min(margin, (best[i] - best[following]) or math.inf)
        pool = a[r:] + b
    return sorted(order[:important] + (pool if diverse else [])), margin


def sign_rows(tokens: int, width: int, seed: int) -> list[list[float]]:
    """Rows of +-1 with a width of a power of four: unit coordinates, cosines and sums are exact in
    any binary arithmetic, and ties abound."""
    random = Random(seed)
    return [[random.choice([-1.0, 1.0]) for _ in range(width)] for _ in range(tokens)]


def gaussian_rows(tokens: int, width: int, seed: int) -> list[list[float]]:
    random = Random(seed)
    rows = [[random.gauss(0.2, 1.0) for _ in range(width)] for _ in range(tokens)]
    return torch.tensor(rows).double().tolist()


def scores(tokens: int, seed: int, levels: int) -> list[float]:
    """Importance in multiples of 1/64, so that many tokens tie."""
    random = Random(-1 - seed)
    return [random.randrange(levels) / 64 for _ in range(tokens)]


def select(rows, importance, keep, ratio, step) -> list[int]:
    return vllm_pruner.select(
        "vispruner",
        keep=keep,
        features=torch.tensor(rows),
        importance=torch.tensor(importance),
        important_ratio=ratio,
        step=step,
    ).tolist()


each_setting = pytest.mark.parametrize(
    "ratio, step", [(ratio, step) for ratio in (0.0, 0.5, 0.75, 1.0) for step in (1, 8, 32)]
)


@pytest.mark.parametrize("tokens, width", [(1, 4), (2, 4), (7, 16), (17, 16), (24, 64), (64, 64)])
@each_setting
def test_exact_similarities_give_the_literal_result_for_every_count(
    tokens, width, ratio, step
) -> None:
    rows, importance = sign_rows(tokens, width, tokens), scores(tokens, tokens, 20)
    cosine = cosines(rows)
    for keep in range(0, tokens + 1, 1 if tokens < 64 else 5):
        expected, _ = literal(cosine, importance, keep, ratio, step)
        assert select(rows, importance, keep, ratio, step) == expected, keep


@pytest.mark.parametrize("tokens, keep", [(576, 64), (577, 58)])
def test_exact_similarities_give_the_literal_result_at_llava_size(tokens, keep) -> None:
    rows, importance = sign_rows(tokens, 16, tokens), scores(tokens, tokens, 4096)
    expected, _ = literal(cosines(rows), importance, keep, 0.5, 8)
    assert select(rows, importance, keep, 0.5, 8) == expected


@pytest.mark.parametrize("seed", range(6))
@each_setting
def test_separated_similarities_give_the_literal_result(ratio, step, seed) -> None:
    rows, importance = gaussian_rows(21, 12, seed), scores(21, seed, 64)
    cosine, compared = cosines(rows), 0
    for keep in range(22):
        expected, margin = literal(cosine, importance, keep, ratio, step)
        if margin > 1e-5:
            assert select(rows, importance, keep, ratio, step) == expected, keep
            compared += 1
    assert compared >= 18, "inputs must be so that rounding seldom decides"


def test_similarities_that_differ_by_a_hundred_thousandth_are_told_apart() -> None:
    """Half precision would not: it is off by a few ten thousandths."""
    compared = 0
    for seed in range(12):
        rows, importance = gaussian_rows(80, 8, seed), scores(80, seed, 64)
        cosine = cosines(rows)
        for keep in (8, 16, 24, 40, 64):
            expected, margin = literal(cosine, importance, keep, 0.5, 8)
            if margin > 1e-5:
                assert select(rows, importance, keep, 0.5, 8) == expected, (seed, keep)
                compared += 1
    assert compared >= 20


def test_the_order_of_the_channels_changes_no_token() -> None:
    """The similarities are exact sums; in floating point, another order rounds to other tokens."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(4, 576, 1024, generator=generator).add(0.5)
    importance = torch.rand(4, 576, generator=generator)
    channels = torch.randperm(1024, generator=generator)
    kept, permuted = (
        vllm_pruner.select("vispruner", keep=64, features=rows, importance=importance)
        for rows in (features, features[:, :, channels])
    )
    assert torch.equal(kept, permuted)


def test_the_literal_result_depends_on_each_setting() -> None:
    """Otherwise the equalities above would hold of a routine that ignores one."""
    cosine, importance = cosines(sign_rows(64, 64, 3)), scores(64, 3, 64)
    settings = [(0.0, 8), (0.5, 8), (0.75, 8), (1.0, 8), (0.5, 1), (0.5, 32)]
    results = [tuple(literal(cosine, importance, 24, *setting)[0]) for setting in settings]
    assert len(set(results)) == len(settings)


@pytest.mark.parametrize("zeros", [[0], [5, 6], [1, 8, 9, 15, 20]], ids=str)
def test_a_row_of_zeros_resembles_nothing(zeros) -> None:
    rows, importance = sign_rows(21, 16, 5), scores(21, 5, 64)
    for j in zeros:
        rows[j] = [0.0] * 16
    cosine = cosines(rows)
    for keep in range(22):
        expected, _ = literal(cosine, importance, keep, 0.5, 8)
        assert select(rows, importance, keep, 0.5, 8) == expected, keep


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_the_length_of_a_row_does_not_matter(dtype) -> None:
    rows = torch.tensor(sign_rows(64, 64, 9)).to(dtype)
    lengths = 2.0 ** torch.arange(64).remainder(9).sub(4).unsqueeze(1)
    importance = torch.tensor(scores(64, 9, 64))
    kept, scaled = (
        vllm_pruner.select("vispruner", keep=20, features=features, importance=importance)
        for features in (rows, rows * lengths.to(dtype))
    )
    assert torch.equal(kept, scaled)


def test_an_important_ratio_of_one_is_the_method_attention() -> None:
    features = torch.randn(5, 99, 8, generator=torch.Generator().manual_seed(0))
    importance = torch.tensor([scores(99, seed, 30) for seed in range(5)])
    for keep in range(100):
        arguments = {"keep": keep, "features": features, "importance": importance}
        assert torch.equal(
            vllm_pruner.select("vispruner", important_ratio=1.0, **arguments),
            vllm_pruner.select("attention", **arguments),
        )


def test_of_every_pair_of_duplicates_one_is_kept_where_attention_keeps_both() -> None:
    """Eight tokens that matter most, then eight pairs of equal tokens, in falling importance."""
    generator = torch.Generator().manual_seed(0)
    distinct, paired = torch.randn(2, 8, 64, generator=generator)
    features = torch.cat([distinct, paired.repeat_interleave(2, dim=0)])
    importance = torch.arange(24, 0, -1).float()
    shuffle = torch.randperm(24, generator=generator)

    def kinds(name: str) -> list[int]:
        kept = vllm_pruner.select(
            name, keep=16, features=features[shuffle], importance=importance[shuffle]
        )
        return sorted(j if j < 8 else 8 + (j - 8) // 2 for j in shuffle[kept].tolist())

    assert kinds("vispruner") == list(range(16))
    assert kinds("attention") == [*range(8), 8, 8, 9, 9, 10, 10, 11, 11]


def test_more_of_the_image_is_covered_than_by_attention() -> None:
    """576 tokens in 48 groups of near-duplicates; the encoder attends to six of the groups."""
    generator = torch.Generator().manual_seed(0)
    group = torch.randint(48, (576,), generator=generator)
    features = torch.randn(48, 256, generator=generator)[group]
    features += 0.1 * torch.randn(features.shape, generator=generator)
    importance = torch.rand(576, generator=generator) + (group < 6) * 10.0

    def groups(name: str) -> int:
        kept = vllm_pruner.select(name, keep=64, features=features, importance=importance)
        return len(set(group[kept].tolist()))

    assert groups("attention") == 6
    assert groups("vispruner") >= 24
