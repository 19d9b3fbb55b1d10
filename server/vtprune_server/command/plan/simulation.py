"""A discrete-event simulation of one replica.

It models what matters according to the measurements: an API server has one core, the engine runs
step by step, and the tower runs within a step unless it has cards of its own. `docs/scale.md` says
what is left out, and how far the simulation is from measurements.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial

from vtprune_server.command.plan.clock import Clock, Lane
from vtprune_server.command.plan.costs import Costs
from vtprune_server.command.plan.engine import Encoders, Engine, Request
from vtprune_server.command.plan.traffic import Layout, Outcome, Traffic

__all__ = ["closed_load", "open_load"]

_LEFT_OUT = 10
"""The first 1/10 of an open load's requests fill the queues and are not counted."""


def closed_load(
    costs: Costs, traffic: Traffic, layout: Layout, clients: int, requests: int
) -> Outcome:
    """Simulate `clients` clients, each of which sends its next request once it has an answer."""
    replica = _Replica(costs, traffic, layout, requests - clients)
    for _ in range(clients):
        replica.begin()
    return replica.outcome(0)


def open_load(
    costs: Costs, traffic: Traffic, layout: Layout, per_s: float, requests: int, seed: int = 0
) -> Outcome:
    """Simulate requests that arrive at random (Poisson), `per_s` per second, whether or not earlier
    ones are answered."""
    replica = _Replica(costs, traffic, layout, 0)
    draw, at = random.Random(seed), 0.0
    for _ in range(requests):
        at += draw.expovariate(per_s)
        replica.clock.after(at, replica.begin)
    return replica.outcome(requests // _LEFT_OUT)


class _Replica:
    """API servers, which requests go to in turn, encoders if there are any, and an engine."""

    def __init__(self, costs: Costs, traffic: Traffic, layout: Layout, again: int) -> None:
        self.clock = Clock()
        self._costs, self._traffic, self._again = costs, traffic, again
        self._lanes = [Lane(self.clock) for _ in range(layout.api_servers)]
        self._engine = Engine(self.clock, costs, traffic, self._gained)
        self._encoders = (
            Encoders(self.clock, costs, traffic, layout.encoders, self._engine.add)
            if layout.encoders and traffic.images
            else None
        )
        self._requests: list[Request] = []

    def begin(self) -> None:
        """Let a request arrive."""
        traffic, costs = self._traffic, self._costs
        lane = self._lanes[len(self._requests) % len(self._lanes)]
        one = Request(self.clock.now, lane, traffic.tokens, traffic.answer)
        self._requests.append(one)
        pictures = traffic.images * costs.api_image * traffic.pixels / costs.picture_pixels
        prepared = self._encoders or self._engine

        def read() -> None:
            lane.prepare(pictures, lambda: prepared.add(one))

        self.clock.after(costs.api_delay, lambda: lane.add(costs.api_request, read))

    def _gained(self, requests: Sequence[Request]) -> None:
        """Have the API servers send a step's tokens on. Tokens that a request gains while others
        of it wait to be sent go out with those, as one event."""
        of_lane: dict[Lane, list[Request]] = {}
        for one in requests:
            if not one.is_unsent:
                one.is_unsent = True
                of_lane.setdefault(one.api, []).append(one)
        for lane, unsent in of_lane.items():
            lane.add(self._costs.api_token * len(unsent), partial(self._send, unsent))

    def _send(self, unsent: Sequence[Request]) -> None:
        for one in unsent:
            one.is_unsent = False
            one.first = one.first or self.clock.now
            if not one.to_answer:
                one.ended = self.clock.now
                if self._again:
                    self._again -= 1
                    self.begin()

    def outcome(self, left_out: int) -> Outcome:
        """Run to the end, and return the outcome without the first `left_out` requests."""
        self.clock.run()
        counted = self._requests[left_out:]
        last = max(one.ended for one in self._requests)
        seconds = last - min(one.begun for one in counted)
        return Outcome(
            len(counted) / seconds,
            sorted(one.first - one.begun for one in counted),
            sum(lane.busy for lane in self._lanes) / len(self._lanes) / last,
        )
