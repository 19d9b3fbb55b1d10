"""The parts that work in batches: the engine, step by step, and encoders beside it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from vtprune_server.command.plan.clock import Clock, Lane
from vtprune_server.command.plan.costs import Costs
from vtprune_server.command.plan.traffic import Traffic

__all__ = ["IMAGES_AT_ONCE", "Encoders", "Engine", "Request"]

IMAGES_AT_ONCE = 16
"""Pictures in an encoder's batch; in a larger one a picture would cost no less."""


@dataclass(slots=True, eq=False)
class Request:
    """A simulated request."""

    begun: float
    """When it arrived, in simulated seconds."""
    api: Lane
    to_prefill: int
    """Prompt tokens left to compute."""
    to_answer: int
    """Tokens left to generate."""
    is_encoded: bool = False
    is_unsent: bool = False
    """Whether it has tokens that its API server has not sent on."""
    first: float = 0.0
    """When its first token was sent; 0 before that."""
    ended: float = 0.0


class Engine:
    """vLLM's scheduler: each step adds a token to every running request, and prefills as many
    prompt tokens as the step still has room for."""

    def __init__(
        self, clock: Clock, costs: Costs, traffic: Traffic, gained: Callable[[list[Request]], None]
    ) -> None:
        self._clock, self._costs, self._traffic, self._gained = clock, costs, traffic, gained
        self._most = max(1, costs.kv_tokens // (traffic.tokens + traffic.answer))
        self._waiting: deque[Request] = deque()
        self._prefilling: list[Request] = []
        self._decoding: list[Request] = []
        self._is_at_work = False

    def add(self, request: Request) -> None:
        """Take a request whose prompt is ready."""
        self._waiting.append(request)
        if not self._is_at_work:
            self._step()

    def _step(self) -> None:
        new = self._admit()
        tokens = self._prefill()
        count = len(self._decoding) + len(self._prefilling)
        self._is_at_work = count > 0
        if not count:
            return
        costs = self._costs
        seconds = costs.step + costs.step_sequence * count + costs.prefill_token * tokens
        seconds += costs.engine_request * len(new)
        images = self._traffic.images * sum(not one.is_encoded for one in new)
        seconds += encoding(costs, self._traffic, images)
        done = [one for one in self._prefilling if not one.to_prefill]
        self._prefilling = [one for one in self._prefilling if one.to_prefill]
        self._decoding += done
        self._clock.after(seconds, self._end)

    def _admit(self) -> list[Request]:
        """Admit waiting requests while the step and the KV cache have room for them."""
        room = self._costs.step_tokens - len(self._decoding)
        room -= sum(one.to_prefill for one in self._prefilling)
        new: list[Request] = []
        while self._waiting and room > 0:
            if len(self._decoding) + len(self._prefilling) >= self._most:
                break
            one = self._waiting.popleft()
            room -= one.to_prefill
            self._prefilling.append(one)
            new.append(one)
        return new

    def _prefill(self) -> int:
        """Prefill in order of admission, and return the number of tokens."""
        room = full = max(0, self._costs.step_tokens - len(self._decoding))
        for one in self._prefilling:
            part = min(one.to_prefill, room)
            one.to_prefill -= part
            room -= part
        return full - room

    def _end(self) -> None:
        gaining = self._decoding
        for one in gaining:
            one.to_answer -= 1
        self._decoding = [one for one in gaining if one.to_answer]
        self._gained(gaining)
        self._step()


class Encoders:
    """Cards that run only the tower: an idle one takes the waiting requests, up to a batch."""

    def __init__(
        self,
        clock: Clock,
        costs: Costs,
        traffic: Traffic,
        cards: int,
        encoded: Callable[[Request], None],
    ) -> None:
        self._clock, self._costs, self._traffic = clock, costs, traffic
        self._idle, self._encoded = cards, encoded
        self._most = max(1, IMAGES_AT_ONCE // max(1, traffic.images))
        self._waiting: deque[Request] = deque()

    def add(self, request: Request) -> None:
        """Take a request whose pictures are ready."""
        self._waiting.append(request)
        self._next()

    def _next(self) -> None:
        if not (self._idle and self._waiting):
            return
        self._idle -= 1
        batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
        seconds = encoding(self._costs, self._traffic, len(batch) * self._traffic.images)
        self._clock.after(seconds, lambda: self._end(batch))

    def _end(self, batch: list[Request]) -> None:
        self._idle += 1
        for request in batch:
            request.is_encoded = True
            self._encoded(request)
        self._next()


def encoding(costs: Costs, traffic: Traffic, images: int) -> float:
    """Seconds to turn a batch of pictures into the decoder's input."""
    if not images:
        return 0.0
    seconds = costs.tower(images * traffic.visual_tokens) + costs.engine_image * images
    return seconds + (costs.selection if traffic.is_pruned else 0.0)
