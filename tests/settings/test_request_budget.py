"""One budget for all images of a request."""

from __future__ import annotations

import numpy as np
import pytest

from vllm_pruner.picture import UNSEEN, Picture
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.settings.request_budget import divided, weight
from vllm_pruner.settings.rules import image_configs
from vllm_pruner.settings.server import ServerConfig

N = 576
PHOTO, PAGE, BLANK = Picture(0.0, 0.2), Picture(0.75, 0.2), Picture(0.0, 1.0)


def kept(server: object, requested: object, *pictures: Picture) -> list[int]:
    counts = [N] * len(pictures)
    configs = image_configs(ServerConfig.parse(server), requested, counts, N, lambda: pictures)
    return [config.keep_count(N) for config in configs]


@pytest.mark.parametrize("budget", [3, 10, 100, 301, 1000, 1727, 1728, 5000])
def test_the_total_is_exact_and_print_gets_most(budget: int) -> None:
    photo, page, blank = kept({}, {"request_tokens": budget}, PHOTO, PAGE, BLANK)
    assert photo + page + blank == min(budget, 3 * N)
    assert page >= photo >= blank >= 1
    if 10 < budget < 1000:
        assert page > photo > blank


def test_no_image_gets_less_than_the_operators_least() -> None:
    asked = {"request_tokens": 200}
    assert kept({}, asked, PAGE, BLANK)[1] < 50
    assert kept({"limits": {"min_tokens": 50}}, asked, PAGE, BLANK) == [150, 50]


def test_forty_pages_share_what_one_context_has() -> None:
    shares = kept({"request_tokens": 3001}, None, *[PAGE] * 40)
    assert sum(shares) == 3001
    assert set(shares) == {75, 76}
    assert shares == sorted(shares, reverse=True)


def test_detail_weighs() -> None:
    settings = {"request_tokens": 210, "detail": ["low", "auto", "high"]}
    assert kept({}, settings, PHOTO, PHOTO, PHOTO) == [10, 40, 160]
    settings = {"request_tokens": 170, "detail": ["auto", "original"]}
    assert kept({}, settings, PHOTO, PHOTO) == [10, 160]


def test_the_share_of_an_image_is_its_own_number_of_tokens() -> None:
    requested = {"request_tokens": 100, "method": "random"}
    server = ServerConfig.parse({"options": {"alpha": 0.5}})
    both = image_configs(server, requested, [N, N], N, lambda: [PAGE, PHOTO])
    alone = image_configs(server, {"tokens": both[0].tokens, "method": "random"}, [N], N)
    assert both[0].canonical() == alone[0].canonical()
    assert both[0].canonical() != both[1].canonical()


@pytest.mark.parametrize("seed", range(60))
def test_shares_are_in_proportion_within_their_bounds(seed: int) -> None:
    random = np.random.default_rng(seed)
    images = int(random.integers(1, 30))
    tokens = random.integers(1, 600, images).tolist()
    weights = random.integers(1, 2000, images).tolist()
    least, budget = int(random.integers(1, 20)), int(random.integers(1, 1 + sum(tokens)))
    shares = divided(budget, weights, tokens, least)
    low = [min(least, count) for count in tokens]
    assert sum(shares) == max(budget, sum(low))
    assert all(a <= b <= c for a, b, c in zip(low, shares, tokens, strict=True))
    free = [i for i in range(images) if low[i] < shares[i] < tokens[i]]
    for i in free:
        for j in free:
            assert (shares[i] + 1) * weights[j] >= (shares[j] - 1) * weights[i]


def test_equal_images_differ_by_one_at_most_and_the_first_gets_it() -> None:
    assert divided(8, [5, 5, 5], [9, 9, 9]) == [3, 3, 2]
    assert divided(2, [5, 5, 5], [9, 9, 9]) == [1, 1, 1]
    assert divided(99, [1, 7], [9, 9]) == [9, 9]
    assert divided(12, [1, 1000], [9, 9]) == [3, 9]


def test_an_image_that_nobody_looked_at_counts_as_it_is_large() -> None:
    assert weight(UNSEEN, 200) == 2 * weight(UNSEEN, 100)
    assert weight(PAGE, 100) > weight(UNSEEN, 100) > weight(BLANK, 100) > 0


@pytest.mark.parametrize(
    ("server", "requested", "sentence"),
    [
        ({}, {"request_tokens": 2}, "request_tokens is 2, for 3 images; allowed: 3 or more"),
        (
            {"limits": {"min_tokens": 50}},
            {"request_tokens": 149},
            "request_tokens is 149, for 3 images; allowed here: 150 or more",
        ),
        (
            {"limits": {"max_rate": 0.9}},
            {"request_tokens": 90},
            "request_tokens is 90, which removes 0.9479 of 1728 tokens; allowed here: rates from 0 "
            "to 0.9",
        ),
        (
            {},
            {"request_tokens": 9, "rate": 0.5},
            "rate is 0.5 and request_tokens is 9; allowed: one of the two",
        ),
        (
            {},
            {"request_tokens": 0},
            "request_tokens is 0; it should be greater than or equal to 1",
        ),
    ],
    ids=str,
)
def test_a_budget_that_cannot_be_is_refused(server, requested, sentence) -> None:
    with pytest.raises(ConfigError) as raised:
        kept(server, requested, PHOTO, PHOTO, PHOTO)
    assert raised.value.at_request() == sentence


def test_a_rate_of_a_request_replaces_the_servers_budget_for_all() -> None:
    assert kept({"request_tokens": 100}, {"rate": 0.5}, PHOTO, PAGE) == [288, 288]
    assert kept({"rate": 0.5}, {"request_tokens": 100}, PHOTO, PHOTO) == [50, 50]
