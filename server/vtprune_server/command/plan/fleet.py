"""How many replicas a traffic needs, and how each is started."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vtprune_server.command.plan.costs import Costs
from vtprune_server.command.plan.engine import IMAGES_AT_ONCE, encoding
from vtprune_server.command.plan.simulation import open_load
from vtprune_server.command.plan.traffic import Layout, Outcome, Traffic

__all__ = ["Bound", "Fleet", "fleet"]

API_SERVERS = (1, 2, 4, 8)
"""Numbers that are tried; more is taken only if it spares a replica."""

_LEAST_REQUESTS, _MOST_REQUESTS = 400, 4000
_BOUNDS = 30
"""A load lasts so many times the bound, so that a queue which grows for ever shows."""

_MOST = 1024
"""Replicas; where these do not do, the bound is what is too tight."""

_ENCODER_LOAD = 0.7
"""Share of the time in which encoders may be at work, so that pictures seldom wait for one."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What first tokens have to keep to."""

    seconds: float
    share: float
    """Of the requests: 0.95 for the 95th percentile."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Replicas that keep to the bound, with what each of them then does."""

    replicas: int
    encoders: int
    """Beside all replicas together; 0 where the tower runs in the replicas."""
    api_servers: int
    """Of each replica."""
    per_s: float
    """Requests a second of each replica."""
    outcome: Outcome


def fleet(
    costs: Costs,
    traffic: Traffic,
    per_s: float,
    bound: Bound,
    apart: bool,
    most_of_one: float = math.inf,
) -> Fleet | None:
    """Return the smallest fleet for a traffic, or None if no number of replicas keeps to the bound.

    Args:
        costs: of a replica's parts.
        traffic: what every request is.
        per_s: requests a second, of all replicas together.
        bound: on first tokens.
        apart: whether the tower runs on cards of its own.
        most_of_one: requests a second that a replica may be given, however well it does.
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
    few = math.ceil(per_s / most_of_one) - 1 if most_of_one < math.inf else 0
    many = few + 1
    while tried(many, API_SERVERS[-1]) is None:
        few, many = many, many * 2
        if many > _MOST:
            return None
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if tried(middle, API_SERVERS[-1]) else (middle, many)
    return next(found for count in API_SERVERS if (found := tried(many, count)))


def _encoders(costs: Costs, traffic: Traffic, per_s: float) -> int:
    """Cards that encode all pictures in full batches, at work for no more than their share."""
    if not traffic.images:
        return 0
    seconds = encoding(costs, traffic, IMAGES_AT_ONCE) / IMAGES_AT_ONCE
    return math.ceil(per_s * traffic.images * seconds / _ENCODER_LOAD)
