"""A request's settings over the operator's."""

from __future__ import annotations

from collections.abc import Mapping

from vllm_pruner.settings.config import BUDGETS, PruneConfig

__all__ = ["override"]


def override(config: PruneConfig, requested: object) -> PruneConfig:
    """Return settings changed by a request's: what it leaves out stays as it is.

    A key with null is left out. A budget replaces one of another kind; options replace all options;
    another method drops those of the first; grounding brings its positions.

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
    if given.get("grounding", "off") != "off":
        merged.pop("positions")  # those of the picture, unless the request names others
    return PruneConfig.parse({**merged, **given})
