"""VisionZip, PruMerge+ and pooling: which tokens, and which rows, by their formulas."""

from __future__ import annotations

from math import floor

import pytest
import torch
from drawn_tokens import COUNTS, KINDS, WIDTH, cosines, draw, keeps, ranked

import vllm_pruner

every_input = pytest.mark.parametrize(
    "kind, tokens", [(kind, tokens) for kind in KINDS for tokens in COUNTS]
)


def visionzip(
    given: dict, image: int, keep: int, contextual_ratio: float = 10 / 64
) -> dict[int, list]:
    features, keys = given["features"][image].double(), given["keys"][image]
    contextual = floor(keep * contextual_ratio)
    dominant = set(ranked(given["importance"][image])[: keep - contextual])
    others = [j for j in range(len(features)) if j not in dominant]
    targets = others[:: len(others) // max(1, contextual) or 1][:contextual]
    joined: dict[int, list[int]] = {target: [] for target in targets}
    for j in others:
        if targets and j not in joined:
            likeness = cosines(keys[j : j + 1], keys[targets])[0].round(decimals=12)
            joined[targets[ranked(likeness)[0]]].append(j)
    rows = {j: features[j] for j in dominant}
    for target, members in joined.items():
        mean = features[members].mean(dim=0) if members else 0
        rows[target] = features[target] + mean
    return rows


def prumerge_plus(given: dict, image: int, keep: int) -> dict[int, list]:
    features, keys = given["features"][image].double(), given["keys"][image]
    attention, total = given["importance"][image].double(), len(given["features"][image])
    if keep in (0, total):
        return dict(enumerate(features[:keep]))
    most = ranked(attention)
    count = max(1, keep - 1)
    salient = most[: round(count / 4)]
    others = [j for j in range(total) if j not in salient]
    free = count - len(salient)
    chosen = salient + [others[floor((i + 0.5) * len(others) / free)] for i in range(free)]
    similar, rows = cosines(keys, keys).round(decimals=12), {}
    for i in chosen:
        like = [j for j in ranked(similar[i]) if j != i][:32]
        rows[i] = features[i] + (attention[like, None] * features[like]).sum(dim=0)
    rest = [j for j in most if j not in chosen]
    if keep > 1:
        rows[rest[0]] = (attention[rest, None] * features[rest]).sum(dim=0)
    return rows


def pool(given: dict, image: int, keep: int) -> dict[int, list]:
    """Only where the cells are the blocks of average pooling."""
    rows, columns = given["grid"]
    size = round((rows * columns / keep) ** 0.5)
    image_rows = given["features"][image].double().view(rows, columns, -1)
    blocks = {}
    for top in range(0, rows, size):
        for left in range(0, columns, size):
            middle = (top + (size - 1) // 2) * columns + left + (size - 1) // 2
            block = image_rows[top : top + size, left : left + size]
            blocks[middle] = block.flatten(0, 1).mean(dim=0)
    return blocks


def check(name: str, literal, given: dict, keep: int, **options: float) -> None:
    index, rows = vllm_pruner.prune(name, keep=keep, **given, **options)
    assert torch.equal(index, vllm_pruner.select(name, keep=keep, **given, **options))
    for image in range(len(index)):
        expected = literal(given, image, keep, **options)
        assert index[image].tolist() == sorted(expected), keep
        wanted = [expected[j].float() for j in sorted(expected)]
        wanted = torch.stack(wanted) if wanted else torch.zeros(0, WIDTH)
        torch.testing.assert_close(rows[image], wanted, rtol=2e-6, atol=3e-5)


@every_input
@pytest.mark.parametrize("literal", [visionzip, prumerge_plus], ids=lambda f: f.__name__)
def test_it_is_the_formula(literal, kind, tokens) -> None:
    given = draw(kind, 2, tokens)
    for keep in keeps(tokens):
        check(literal.__name__.replace("_plus", "+"), literal, given, keep)


@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0])
def test_visionzips_option_is_the_share_of_merged_tokens(ratio) -> None:
    check("visionzip", visionzip, draw("random", 2, 64), 24, contextual_ratio=ratio)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tokens, keep", [(576, 64), (576, 144), (576, 36), (64, 16), (64, 64)])
def test_pooling_is_average_pooling(kind, tokens, keep) -> None:
    given = draw(kind, 2, tokens)
    check("pool", pool, given, keep)
    side = given["grid"][0]
    image = given["features"].mT.reshape(2, WIDTH, side, side)
    pooled = torch.nn.functional.avg_pool2d(image, round((tokens / keep) ** 0.5))
    _, rows = vllm_pruner.prune("pool", keep=keep, **given)
    torch.testing.assert_close(rows, pooled.flatten(2).mT, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("grid", [(24, 24), (8, 8), (1, 7), (7, 1), (5, 9), (9, 5)])
def test_pooling_cuts_the_grid_into_exactly_as_many_equal_parts(grid) -> None:
    """A token's row is its number, in one channel each: a mean tells who is in it."""
    total = grid[0] * grid[1]
    for keep in range(1, total + 1, 1 if total < 100 else 23):
        index, rows = vllm_pruner.prune("pool", keep=keep, features=torch.eye(total), grid=grid)
        sizes = (rows > 0).sum(dim=1)
        torch.testing.assert_close((rows > 0).sum(dim=0), torch.ones(total, dtype=torch.int64))
        torch.testing.assert_close(rows.sum(dim=1), torch.ones(keep))
        assert (rows[torch.arange(keep), index] > 0).all(), "a row stands inside its cell"
        assert sizes.max() <= 4 * sizes.min() + 2


@pytest.mark.parametrize("name", ["visionzip", "prumerge+", "pool"])
def test_rows_have_the_type_of_the_features_and_no_batch_changes_a_bit(name) -> None:
    given = draw("random", 4, 64)
    given["features"] = given["features"].bfloat16()
    _, together = vllm_pruner.prune(name, keep=20, **given)
    assert together.dtype == torch.bfloat16
    for image in range(4):
        alone = {k: v[image] if k != "grid" else v for k, v in given.items()}
        assert torch.equal(vllm_pruner.prune(name, keep=20, **alone)[1], together[image])


def test_merging_keeps_what_choosing_loses() -> None:
    """One odd token that nobody attends to: its direction survives in a merged row."""
    given = draw("constant", 1, 64)
    given["importance"][0] = torch.linspace(1, 0.5, 64)
    given["features"][0, 63, 0] = -5.0
    kept = vllm_pruner.select("attention", keep=16, **given)
    assert (given["features"][0, kept[0], 0] == 1.0).all()
    for name in ("visionzip", "prumerge+", "pool"):
        _, rows = vllm_pruner.prune(name, keep=16, **given)
        assert bool((rows[0, :, 0] / rows[0, :, 1] < 0.99).any()), name
