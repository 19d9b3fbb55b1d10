"""A floor under what an image with print keeps."""

from __future__ import annotations

import numpy as np
import pytest

from vllm_pruner.picture import UNSEEN, Picture
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.settings.floor import floored
from vllm_pruner.settings.limits import Limits
from vllm_pruner.settings.rules import image_configs
from vllm_pruner.settings.server import ServerConfig

N = 576
PHOTO, PAGE, ALL = Picture(0.0, 0.2), Picture(0.75, 0.2), Picture(1.0, 0.0)


def kept(server: object, requested: object, *pictures: Picture) -> list[tuple[int, str]]:
    counts = [N] * len(pictures)
    configs = image_configs(ServerConfig.parse(server), requested, counts, N, lambda: pictures)
    return [(config.keep_count(N), config.floor) for config in configs]


@pytest.mark.parametrize(
    ("server", "requested", "counts"),
    [
        # of 576 a page keeps 432, and one ninth of the others
        ({}, None, [(64, "off"), (448, "text"), (576, "text")]),
        ({"rate": 0.5}, None, [(288, "off"), (504, "text"), (576, "text")]),
        ({"tokens": 64}, {}, [(64, "off"), (448, "text"), (576, "text")]),
        ({"rate": 0.0}, None, [(576, "off")] * 3),
        ({"floor": "off"}, None, [(64, "off")] * 3),
        ({}, {"floor": "off"}, [(64, "off")] * 3),
        ({"floor": "off"}, {"floor": "text"}, [(64, "off"), (448, "text"), (576, "text")]),
        ({}, {"method": "random"}, [(64, "off"), (448, "text"), (576, "text")]),
        # who names a budget means it
        ({}, {"rate": 0.9}, [(58, "off")] * 3),
        ({}, {"tokens": 100}, [(100, "off")] * 3),
        ({}, {"tokens": 64, "floor": "text"}, [(64, "off"), (448, "text"), (576, "text")]),
        # low is what a client asks for, high never less than auto
        ({}, {"detail": ["low"] * 3}, [(29, "off")] * 3),
        ({}, {"detail": ["high"] * 3}, [(288, "off"), (448, "text"), (576, "text")]),
        # the operator's least is removed of a page too
        ({"limits": {"min_rate": 0.5}}, None, [(64, "off"), (288, "text"), (288, "text")]),
    ],
    ids=str,
)
def test_print_is_not_counted_in_what_is_removed(server, requested, counts) -> None:
    assert kept(server, requested, PHOTO, PAGE, ALL) == counts


CELLS = np.zeros((32, 32), bool)
CELLS[8:] = True
MARGIN = Picture(0.2, 0.75, np.packbits(CELLS).tobytes())
"""Three quarters of it are plain."""


@pytest.mark.parametrize(
    ("server", "requested", "counts"),
    [
        # of 576 tokens 432 are plain, and one ninth of these stay; a photograph has none
        ({"floor": "content"}, None, [(576, "content"), (192, "content"), (576, "content")]),
        ({"floor": "content", "rate": 0.5}, None, [(576, "content"), (360, "content")]),
        ({"floor": "content", "rate": 0.95}, {}, [(576, "content"), (166, "content")]),
        ({}, {"rate": 0.5, "floor": "content"}, [(576, "content"), (360, "content")]),
        ({"floor": "content"}, {"rate": 0.5}, [(288, "off"), (288, "off")]),
        # what chooses by pixels finds nothing else, so it leaves the rest whoever sets the budget
        ({"method": "pixels"}, None, [(576, "content"), (192, "content")]),
        ({"method": "pixels", "floor": "off"}, None, [(64, "off"), (64, "off")]),
        ({"method": "pixels"}, {"rate": 0.5}, [(576, "content"), (360, "content")]),
        ({"method": "pixels"}, {"floor": "off"}, [(64, "off"), (64, "off")]),
        ({}, {"method": "pixels"}, [(576, "content"), (192, "content")]),
        ({"floor": "off"}, {"method": "pixels", "rate": 0.5}, [(576, "content"), (360, "content")]),
        # the rate of such a server was meant for what is empty, whichever method then chooses
        ({"method": "pixels"}, {"method": "random"}, [(576, "content"), (192, "content")]),
        (
            {"floor": "content", "limits": {"min_rate": 0.5}},
            None,
            [(288, "content"), (192, "content")],
        ),
    ],
    ids=str,
)
def test_only_plain_tokens_are_counted_in_what_is_removed(server, requested, counts) -> None:
    pictures = [Picture(0.0, 0.2, b"\0" * 128), MARGIN, UNSEEN]
    assert kept(server, requested, *pictures[: len(counts)]) == counts


def test_pictures_are_looked_at_only_where_it_counts() -> None:
    def look() -> list[Picture]:
        raise AssertionError("looked")

    for server, requested in (
        ({"rate": 0.0}, None),
        ({"floor": "off"}, None),
        ({}, {"rate": 0.5}),
        ({}, {"request_tokens": 100}),
    ):
        image_configs(ServerConfig.parse(server), requested, [N], N, look)


@pytest.mark.parametrize("budget", [{"rate": 0.9}, {"rate": 0.01}, {"tokens": 1}, {"tokens": 575}])
def test_no_image_ever_keeps_less(budget) -> None:
    for tokens in (1, 2, 9, 100, 576, 4096):
        config = PruneConfig.parse(budget)
        counts = [
            floored(config, Picture(cells / 1024, 0.0), tokens, Limits()).keep_count(tokens)
            for cells in range(0, 1025, 8)
        ]
        assert counts == sorted(counts)
        assert counts[0] == config.keep_count(tokens)
        assert counts[-1] == tokens


def test_what_a_floor_changes_has_another_identity_and_what_it_does_not_the_same() -> None:
    config, limits = PruneConfig.parse({}), Limits()
    photo, page = (floored(config, seen, N, limits).canonical() for seen in (PHOTO, PAGE))
    assert photo == PruneConfig.parse({"floor": "off"}).canonical()
    assert page != photo
    assert floored(config, Picture(0.5, 0.2), N, limits).canonical() not in (page, photo)


def test_another_floor_is_refused() -> None:
    with pytest.raises(ConfigError) as raised:
        PruneConfig.parse({"floor": "edges"})
    assert str(raised.value) == "floor is 'edges'; it should be 'text', 'content' or 'off'"
