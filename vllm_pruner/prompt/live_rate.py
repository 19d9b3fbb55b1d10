"""The server's own rate at the moment, where it moves: with its load, and by what shadows say.

It is asked for once a request, so all images of one have the same. It replaces the operator's rate
in the settings of an image, which are part of its identity; nothing downstream knows that it moved.
Each process that takes requests has its own: vLLM tells all of them how busy the engines are, and
what shadows found is shared, but two may be a step apart for a moment.
"""

from __future__ import annotations

import logging
import threading
import time
from functools import cache

from vllm_pruner.prompt.load_steps import LoadSteps
from vllm_pruner.prompt.prefill_queue import prefilling
from vllm_pruner.prompt.shadow_rule import ShadowRule
from vllm_pruner.settings.again import Again
from vllm_pruner.settings.load import Load, ladder
from vllm_pruner.settings.own_rate import follows
from vllm_pruner.settings.server import ServerConfig
from vllm_pruner.telemetry import metrics
from vllm_pruner.telemetry.engine_load import EngineLoad, engine_load

__all__ = ["LiveRate", "live_rate", "rate_for"]

logger = logging.getLogger("vllm.vtprune")

_LOOK = 0.1
"""Seconds between two looks at the load, which several API servers read from files."""


def live_rate(config: ServerConfig) -> LiveRate | None:
    """Return the rate of this process under the operator's settings; None if it never moves."""
    most, bound = config.rate_under_load, config.shadow_bound
    if config.rate is None or (most is None and not bound):
        return None
    rates = (config.rate,) if most is None else ladder(config.rate, most)
    return _of(rates, config.load, bound, config.limits.min_rate)


def rate_for(config: ServerConfig, requested: object) -> float | None:
    """Return the server's rate for a request; None if that never moves, or if the request has a
    budget of its own.

    Args:
        config: the operator's settings.
        requested: the request's; of an `Again`, the rate is the one that it had.
    """
    again = requested if isinstance(requested, Again) else Again(requested)
    live, had = live_rate(config), again.rate
    if live is None or not follows(again.settings):
        return None
    return live.now() if had is None else had


@cache
def _of(rates: tuple[float, ...], load: Load, bound: float, least: float) -> LiveRate:
    """One for all processors of a process: vLLM makes one for every request with an image."""
    return LiveRate(rates, load, ShadowRule(bound, least) if bound else None)


class LiveRate:
    """Of one process."""

    def __init__(self, rates: tuple[float, ...], load: Load, rule: ShadowRule | None) -> None:
        """Begin at the first of `rates`, which ascend."""
        self._rates, self.rule = rates, rule
        self._steps = LoadSteps(load, len(rates) - 1)
        self._lock = threading.Lock()
        self._looked, self._rate = float("-inf"), rates[0]
        metrics.RATE.set(self._rate)

    def now(self) -> float:
        """Return the rate; from any thread."""
        with self._lock:
            now = time.monotonic()
            if now - self._looked >= _LOOK:
                self._looked = now
                self._look(now)
            return self._rate

    def _look(self, now: float) -> None:
        load = _load() if len(self._rates) > 1 else None
        asked = self._rates[0 if load is None else self._steps.step(load, now)]
        most = self.rule.most() if self.rule else None
        rate = asked if most is None else min(asked, most)
        if rate != self._rate:
            before, self._rate = self._rate, rate
            metrics.RATE.set(rate)
            _say(before, rate, load)


def _load() -> EngineLoad | None:
    """The load as the engines tell it, or, if that is more, as this process's requests show it."""
    load = engine_load()
    return load and load._replace(waiting=max(load.waiting, prefilling()))


def _say(before: float, rate: float, load: EngineLoad | None) -> None:
    why = "" if load is None else _of_load(load)
    logger.info("vtprune: rate %.4f in place of %.4f%s", rate, before, why)


def _of_load(load: EngineLoad) -> str:
    return f": {load.waiting:.0f} requests wait, {100 * load.kv_cache:.0f} % of the KV cache in use"
