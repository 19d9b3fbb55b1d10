"""The server's own rate where it moves: whose images have it."""

from __future__ import annotations

from collections.abc import Mapping

from vllm_pruner.settings.again import UNPRUNED
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.defaults import names_budget

__all__ = ["at_rate", "follows"]


def follows(requested: object) -> bool:
    """Return whether a request leaves it to the server how much is kept."""
    if requested is UNPRUNED:
        return False
    return not (isinstance(requested, Mapping) and names_budget(requested))


def at_rate(config: PruneConfig, rate: float | None, requested: object) -> PruneConfig:
    """Return settings at the server's rate of the moment, if they have the server's.

    Args:
        config: of a request's images, with the operator's rate.
        rate: of the moment; None if it never moves.
        requested: the request's own, None if it has none.
    """
    if rate is None or not follows(requested):
        return config
    return config.model_copy(update={"rate": rate})
