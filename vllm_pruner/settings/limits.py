"""How far a request may move from the operator's settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vllm_pruner.settings.errors import SettingError
from vllm_pruner.settings.validation import check_method_name

if TYPE_CHECKING:
    from vllm_pruner.settings.config import PruneConfig

__all__ = ["Limits", "Rate"]

Rate = Annotated[float, Field(ge=0.0, lt=1.0, allow_inf_nan=False)]
"""Fraction of an image's visual tokens removed."""


class Limits(BaseModel):
    """What a request may ask for; by default everything that the settings themselves allow."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    min_rate: Rate = 0.0
    """The least that is removed; above 0, no request can turn pruning off."""

    max_rate: Rate | None = None
    """The most that is removed."""

    methods: list[str] | None = None
    """Names of the methods that a request may choose; None allows all."""

    min_tokens: Annotated[int, Field(ge=1)] = 1
    """Visual tokens that each image keeps at least, or all of a smaller one."""

    @model_validator(mode="after")
    def _possible(self) -> Limits:
        if self.max_rate is not None and self.max_rate < self.min_rate:
            most = ("limits.max_rate", str(self.max_rate))
            allowed = "the first at most the second"
            raise SettingError("limits.min_rate", str(self.min_rate), allowed, beside=most)
        for name in self.methods or ():
            check_method_name(name)
        return self

    def clamp(self, rate: float) -> float:
        """The rate within the bounds that is nearest to `rate`."""
        most = rate if self.max_rate is None else min(rate, self.max_rate)
        return max(most, self.min_rate)

    def method_fault(self, name: str) -> SettingError | None:
        """Return what is wrong with a method whatever the budget, or None."""
        if self.methods is not None and name not in self.methods:
            return self._error("method", repr(name), ", ".join(self.methods))
        return None

    def fault(self, config: PruneConfig) -> SettingError | None:
        """Return what is wrong with settings whatever the image, or None."""
        if fault := self.method_fault(config.method):
            return fault
        if config.rate is not None and self.clamp(config.rate) != config.rate:
            return self._error("rate", f"{config.rate:g}", self._rates)
        if config.tokens is not None and config.tokens < self.min_tokens:
            return self._error("tokens", str(config.tokens), self._tokens)
        return None

    def fault_on(self, config: PruneConfig, tokens: int) -> SettingError | None:
        """Return what is wrong with settings for an image of `tokens` visual tokens, or None."""
        if fault := self.fault(config):
            return fault
        keep = config.keep_count(tokens)
        if keep < min(self.min_tokens, tokens):
            why = f", which keeps {keep} of an image's {tokens} tokens"
            return self._error("rate", f"{config.rate:g}", self._tokens, why)
        removed = 1 - keep / tokens
        if config.tokens is not None and self.clamp(removed) != removed:
            why = f", which removes {removed:.4f} of an image's {tokens}"
            return self._error("tokens", str(config.tokens), self._rates, why)
        return None

    @staticmethod
    def _error(key: str, value: str, allowed: str, why: str = "") -> SettingError:
        return SettingError(key, value, allowed, why, by="limits")

    @property
    def _rates(self) -> str:
        most = "below 1" if self.max_rate is None else f"{self.max_rate:g}"
        return f"rates from {self.min_rate:g} to {most}"

    @property
    def _tokens(self) -> str:
        return f"{self.min_tokens} or more"
