"""Apply a request's settings on top of the operator's."""

from __future__ import annotations

from collections.abc import Mapping

from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.defaults import BUDGETS, is_before_tower

__all__ = ["override"]


def override(config: PruneConfig, requested: object) -> PruneConfig:
    """Return settings changed by a request's; keys that it leaves out, or sets to null, stay.

    A budget replaces a budget of any kind; options replace all options; another method drops the
    first one's options; one that finds only what is empty brings the floor that it needs; grounding
    resets `positions` unless the request sets them.

    Raises:
        ConfigError: the first fault.
    """
    if not isinstance(requested, Mapping):
        return PruneConfig.parse(requested)
    given = {key: value for key, value in requested.items() if value is not None}
    merged = config.model_dump(exclude_none=True)
    if given.keys() & set(BUDGETS):
        merged = {key: value for key, value in merged.items() if key not in BUDGETS}
    if given.get("method", config.method) != config.method:
        merged.pop("options")
        if is_before_tower(given["method"]):
            merged.pop("floor")
    if given.get("grounding", "off") != "off":
        merged.pop("positions")  # the default, "original", unless the request sets others
    return PruneConfig.parse({**merged, **given})
