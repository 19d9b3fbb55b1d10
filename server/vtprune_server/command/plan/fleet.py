"""How many replicas a load needs, and with how many API servers and encoders."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from vtprune_server.command.plan.costs import Costs
from vtprune_server.command.plan.engine import IMAGES_AT_ONCE, encoding
from vtprune_server.command.plan.simulation import open_load
from vtprune_server.command.plan.traffic import Layout, Outcome, Traffic

__all__ = ["Bound", "Fleet", "fleet"]

API_SERVERS = (1, 2, 4, 8)
"""Numbers that are tried; the smallest that needs no further replica is taken."""

_LEAST_REQUESTS, _MOST_REQUESTS = 400, 4000
_BOUNDS = 30
"""A simulated load lasts this many times the bound, long enough to show a queue that only grows."""

_MOST = 1024
"""Replicas; if so many don't keep to the bound, no number of them will."""

_ENCODER_LOAD = 0.7
"""Utilisation that encoders are planned for, at which pictures seldom wait for one."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A bound on the time to the first token."""

    seconds: float
    share: float
    """The share of requests that keep to it: 0.95 for the 95th percentile."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """A number of replicas that keeps to the bound, and what each of them does."""

    replicas: int
    encoders: int
    """Cards for the tower, for all replicas together; 0 if the tower runs in the replicas."""
    api_servers: int
    """Per replica."""
    per_s: float
    """Requests per second and replica."""
    outcome: Outcome


def fleet(
    costs: Costs,
    traffic: Traffic,
    per_s: float,
    bound: Bound,
    apart: bool,
    most_of_one: float = math.inf,
) -> Fleet | None:
    """Return the smallest fleet for a load, or None if no number of replicas keeps to the bound.

    Args:
        costs: the machine's costs.
        traffic: the shape of every request.
        per_s: requests per second, for all replicas together.
        bound: the bound on first tokens.
        apart: whether the tower runs on cards of its own.
        most_of_one: the most requests per second that a replica may get, even if the simulation
            would let it have more.
    """

    def tried(replicas: int, api_servers: int) -> Fleet | None:
        each = per_s / replicas
        requests = math.ceil(_BOUNDS * bound.seconds * each)
        requests = min(_MOST_REQUESTS, max(_LEAST_REQUESTS, requests))
        layout = Layout(api_servers, int(apart))
        outcome = open_load(costs, traffic, layout, each, requests)
        if outcome.first_token(bound.share) > bound.seconds:
            return None
        return Fleet(replicas, encoders, api_servers, each, outcome)

    encoders = _encoders(costs, traffic, per_s) if apart else 0
    too_few = math.ceil(per_s / most_of_one) - 1 if most_of_one < math.inf else 0
    replicas = _least(too_few, lambda number: tried(number, API_SERVERS[-1]) is not None)
    if replicas is None:
        return None
    return next(found for count in API_SERVERS if (found := tried(replicas, count)))


def _least(few: int, keeps: Callable[[int], bool]) -> int | None:
    """Return the smallest number above `few` that keeps to the bound, None if it is beyond `_MOST`;
    every larger one does, too."""
    many = few + 1
    while not keeps(many):
        few, many = many, many * 2
        if many > _MOST:
            return None
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if keeps(middle) else (middle, many)
    return many


def _encoders(costs: Costs, traffic: Traffic, per_s: float) -> int:
    """Return the number of cards that encode all pictures, in full batches, at `_ENCODER_LOAD`."""
    if not traffic.images:
        return 0
    seconds = encoding(costs, traffic, IMAGES_AT_ONCE) / IMAGES_AT_ONCE
    return math.ceil(per_s * traffic.images * seconds / _ENCODER_LOAD)
