"""What every method promises through `vllm_pruner.select`, whatever it is called."""

from __future__ import annotations

from itertools import permutations
from math import isqrt

import pytest
import torch

import vllm_pruner
from vllm_pruner import methods

NAMES = [name for name in methods.names() if methods.get(name).shrink is None]
"""All that choose among tokens; `resize` makes fewer of them."""

GREEDY = {"divprune", "scope", "cdpruner", "triad"}
"""Their torch references take a step for every kept token, and look at all pairs in each."""

CASES = [
    *(pytest.param(name, {}, id=name) for name in NAMES),
    pytest.param("random", {"seed": -7}, id="random-seeded"),
    pytest.param("vispruner", {"important_ratio": 0.0, "step": 1}, id="vispruner-diverse"),
    pytest.param("vispruner", {"important_ratio": 0.75, "step": 3}, id="vispruner-three-quarters"),
    pytest.param("vispruner", {"important_ratio": 1.0}, id="vispruner-important"),
    pytest.param("vispruner", {"step": 32}, id="vispruner-coarse"),
]
each_method = pytest.mark.parametrize("name, options", CASES)


def choose(name: str, **arguments: object) -> torch.Tensor:
    """`vllm_pruner.select`, with what else the method looks at, made of features and importance."""
    features, importance = arguments["features"], arguments.get("importance")
    if isinstance(features, torch.Tensor) and features.dim() in (2, 3) and name in NAMES:
        question = torch.linspace(-1, 1, 3 * features.shape[-1]).view(3, -1)
        side = isqrt(total := features.shape[-2])
        made = {
            "projected": features,
            "text": question if features.dim() == 2 else [question] * len(features),
            "keys": features[..., ::2],
            "received": None if importance is None else importance.flip(-1),
            "received_midway": None if importance is None else importance.roll(3, -1),
            "grid": (side, side) if side * side == total else (1, total),
        }
        needs = methods.get(name).needs
        arguments = {**{k: v for k, v in made.items() if k in needs}, **arguments}
    return vllm_pruner.select(name, **arguments)


def images(count: int, tokens: int, width: int = 16, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Features with near-duplicates and exact ones, and importance with ties."""
    generator = torch.Generator().manual_seed(seed)
    prototypes = torch.randn(count, 5, width, generator=generator)
    which = torch.randint(5, (count, tokens), generator=generator)
    noise = torch.randn(count, tokens, width, generator=generator)
    noise *= torch.randint(2, (count, tokens, 1), generator=generator) * 0.3
    features = prototypes.gather(1, which.unsqueeze(2).expand(-1, -1, width)) + noise
    importance = torch.rand(count, tokens, generator=generator).mul(50).round().div(50)
    return features, importance


def assert_well_formed(name: str, kept: torch.Tensor, count: int, keep: int, tokens: int) -> None:
    assert kept.dtype == torch.int64
    assert kept.shape == (count, keep)
    if methods.get(name).repeats:
        assert bool((kept[:, 1:] >= kept[:, :-1]).all()), "ascending"
        assert bool((kept[:, 2:] > kept[:, :-2]).all()), "a token twice at most"
    else:
        assert bool((kept[:, 1:] > kept[:, :-1]).all()), "ascending, hence unique"
    assert bool(((kept >= 0) & (kept < tokens)).all())


@pytest.mark.parametrize("tokens", [1, 2, 7, 17, 64])
@each_method
def test_every_count_from_none_to_all_is_met_exactly(name, options, tokens) -> None:
    features, importance = images(3, tokens)
    for keep in sorted({*range(0, tokens + 1, 1 if tokens < 64 else 9), tokens - 1, tokens}):
        kept = choose(name, keep=keep, features=features, importance=importance, **options)
        assert_well_formed(name, kept, 3, keep, tokens)


@pytest.mark.parametrize(
    "tokens, keeps",
    [
        pytest.param(576, [0, 1, 2, 29, 58, 64, 333, 575, 576], id="576"),
        pytest.param(577, [0, 1, 2, 29, 58, 64, 333, 576, 577], id="577"),
        pytest.param(2880, [0, 321, 2511, 2879, 2880], id="2880"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_counts_are_exact_at_the_sizes_of_real_images(name, tokens, keeps) -> None:
    features, importance = images(2, tokens)
    if name in GREEDY:
        keeps = [keep for keep in keeps if keep in (0, 1, 64)]
    for keep in keeps:
        kept = choose(name, keep=keep, features=features, importance=importance)
        assert_well_formed(name, kept, 2, keep, tokens)


@each_method
def test_keeping_all_keeps_all_in_order(name, options) -> None:
    features, importance = images(2, 65)
    kept = choose(name, keep=65, features=features, importance=importance, **options)
    if methods.get(name).repeats:
        assert len(set(kept[0].tolist())) >= 33, "each of two lists fills half of it at least"
    else:
        assert kept.tolist() == [list(range(65))] * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@each_method
def test_a_second_call_gives_the_same_and_leaves_its_arguments_alone(name, options, dtype) -> None:
    features, importance = (tensor.to(dtype) for tensor in images(2, 100))
    before = features.clone(), importance.clone()
    first, second = (
        choose(name, keep=31, features=features, importance=importance, **options) for _ in range(2)
    )
    assert torch.equal(first, second)
    assert torch.equal(features, before[0])
    assert torch.equal(importance, before[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("tokens, width", [(7, 16), (64, 24), (577, 48)])
@each_method
def test_an_image_keeps_the_same_tokens_alone_and_anywhere_in_any_batch(
    name, options, tokens, width, dtype
) -> None:
    features, importance = images(4, tokens, width)
    features = features.to(dtype)
    keep = 16 if name in GREEDY and tokens > 64 else tokens // 3

    def select(features, importance):
        return choose(name, keep=keep, features=features, importance=importance, **options)

    alone = [select(features[i], importance[i]) for i in range(4)]
    assert all(one.shape == (keep,) for one in alone)
    orders = [(3, 1, 0, 2), (0, 0, 0, 0), (2, 2, 1, 2, 2, 2, 3, 2, 0), (1, 3, 0), (2,)]
    if tokens < 64:
        orders += [order for size in (1, 2, 3) for order in permutations(range(4), size)]
    for order in orders:
        batched = select(features[list(order)], importance[list(order)])
        assert torch.equal(batched, torch.stack([alone[i] for i in order])), order


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_and_of_images_changes_no_token_at_llava_size(threads) -> None:
    features, importance = images(7, 576, 1024)
    features += torch.randn(features.shape, generator=torch.Generator().manual_seed(1))
    before = torch.get_num_threads()
    batched = choose("vispruner", keep=64, features=features, importance=importance)
    try:
        torch.set_num_threads(threads)
        for i in (0, 3, 6):
            alone = choose("vispruner", keep=64, features=features[i], importance=importance[i])
            assert torch.equal(batched[i], alone)
    finally:
        torch.set_num_threads(before)


@each_method
def test_a_view_selects_like_its_copy(name, options) -> None:
    features, importance = images(3, 50, 32)
    strided = features.transpose(0, 1).contiguous().transpose(0, 1)
    wide = torch.stack([importance, importance], dim=2)[:, :, 0]
    assert not strided.is_contiguous() and not wide.is_contiguous()
    assert torch.equal(
        choose(name, keep=20, features=strided, importance=wide, **options),
        choose(name, keep=20, features=features, importance=importance, **options),
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["attention", "uniform", "vispruner"])
def test_half_precision_is_read_at_its_value(name, dtype) -> None:
    features, importance = images(3, 100, 32)
    features, importance = features.to(dtype), importance.to(dtype)
    assert torch.equal(
        choose(name, keep=33, features=features, importance=importance),
        choose(name, keep=33, features=features.float(), importance=importance.float()),
    )


@each_method
def test_no_images_and_no_tokens_are_answered_with_nothing(name, options) -> None:
    for shape, keep in (((0, 12, 8), 5), ((2, 0, 8), 0), ((2, 12, 8), 0)):
        kept = choose(
            name, keep=keep, features=torch.ones(shape), importance=torch.ones(shape[:2]), **options
        )
        assert_well_formed(name, kept, shape[0], keep, shape[1])


EXTREMES = {
    "zero features": lambda f, s: (torch.zeros_like(f), s),
    "a few zero rows": lambda f, s: (f.index_fill(1, torch.tensor([0, 3, 4, 38]), 0.0), s),
    "constant features": lambda f, s: (torch.full_like(f, 0.3), s),
    "one row repeated": lambda f, s: (f[:, :1].expand_as(f), s),
    "huge features": lambda f, s: (f * 1e30, s),
    "tiny features": lambda f, s: (f * 1e-30, s),
    "subnormal features": lambda f, s: (f * 1e-41, s),
    "huge beside tiny": lambda f, s: (f * torch.tensor([1e30, 1e-30]).repeat(20)[:39, None], s),
    "constant importance": lambda f, s: (f, torch.full_like(s, 1 / 39)),
    "zero importance": lambda f, s: (f, torch.zeros_like(s)),
    "negative importance": lambda f, s: (f, -s),
    "huge importance": lambda f, s: (f, s * 1e38),
    "NaN features": lambda f, s: (f.index_fill(1, torch.tensor([1, 30]), torch.nan), s),
    "infinite features": lambda f, s: (f.index_fill(1, torch.tensor([1, 30]), torch.inf), s),
    "NaN importance": lambda f, s: (f, s.index_fill(1, torch.tensor([1, 30]), torch.nan)),
}


@pytest.mark.parametrize("extreme", EXTREMES)
@each_method
def test_extreme_values_still_give_exactly_as_many_tokens(name, options, extreme) -> None:
    features, importance = EXTREMES[extreme](*images(3, 39))
    for keep in (0, 1, 2, 19, 38, 39):
        kept = choose(name, keep=keep, features=features, importance=importance, **options)
        assert_well_formed(name, kept, 3, keep, 39)


@pytest.mark.parametrize("name", ["random", "uniform"])
def test_a_method_that_ranks_nothing_needs_no_importance(name) -> None:
    features, importance = images(2, 20)
    assert torch.equal(
        choose(name, keep=5, features=features),
        choose(name, keep=5, features=features, importance=importance),
    )
