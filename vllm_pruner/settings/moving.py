"""The operator's settings under which the server's own rate moves: what is wrong with them."""

from __future__ import annotations

from dataclasses import replace

from vllm_pruner.settings.bounds import clamp, count_fault
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.defaults import BUDGETS
from vllm_pruner.settings.errors import SettingError
from vllm_pruner.settings.limits import Limits

__all__ = ["least_fault", "moving_fault"]


def moving_fault(
    limits: Limits, config: PruneConfig, most: float | None, bound: float
) -> SettingError | None:
    """Return what is wrong with how the rate moves, whatever the image, or None.

    Args:
        limits: the operator's limits.
        config: settings with the rate that the operator or the model's family names.
        most: the rate under load, None if there is none.
        bound: the agreement below which the rate falls, 0 if there is none.
    """
    if most is None and not bound:
        return None
    key, value = (
        ("rate_under_load", f"{most:g}") if most is not None else ("shadow_bound", f"{bound:g}")
    )
    if config.rate is None:
        budget = next(name for name in BUDGETS if getattr(config, name) is not None)
        beside = (budget, str(getattr(config, budget)))
        return SettingError(key, value, "a rate in place of the second", beside=beside)
    if most is None:
        return None
    if most < config.rate:
        beside = ("rate", f"{config.rate:.4g}")
        return SettingError(key, value, "a rate that is not below the second", beside=beside)
    if clamp(limits, most) != most:
        allowed = f"rates up to {limits.max_rate:g}"
        return SettingError(key, value, allowed, by="limits")
    return None


def least_fault(
    limits: Limits, config: PruneConfig, most: float | None, tokens: int
) -> SettingError | None:
    """Return what is wrong with the rate under load for an image of `tokens` visual tokens, or
    None; the other arguments are those of `moving_fault`."""
    if most is None:
        return None
    at_most = config.model_copy(update={"rate": most})
    found = count_fault(limits, at_most, tokens, "an image")
    return found and replace(found, key="rate_under_load")
