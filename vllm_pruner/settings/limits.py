"""How far a request may move from the operator's settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vllm_pruner import methods
from vllm_pruner.settings.errors import SettingError
from vllm_pruner.settings.validation import check_method_name

__all__ = ["Limits", "MethodName", "Rate"]

Rate = Annotated[float, Field(ge=0.0, lt=1.0, allow_inf_nan=False)]
"""Fraction of an image's visual tokens removed."""

MethodName = Annotated[
    str, Field(json_schema_extra=lambda schema: schema.update(enum=list(methods.names())))
]
"""The name of an installed method for images, as `check_method_name` checks."""


class Limits(BaseModel):
    """What a request may ask for; by default everything that the settings themselves allow, with
    the methods of this package."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True
    )

    min_rate: Rate = 0.0
    """The least that is removed; above 0, no request can turn pruning off."""

    max_rate: Rate | None = None
    """The most that is removed."""

    methods: list[MethodName] | None = None
    """Names of the methods that a request may choose; vtprune's own and the server's if null."""
    # `ServerConfig` fills it in: a package that is installed is not yet open to every client.

    min_tokens: Annotated[int, Field(ge=1)] = 1
    """Visual tokens that each image keeps at least, or all of a smaller one."""

    @model_validator(mode="after")
    def _possible(self) -> Limits:
        if self.max_rate is not None and self.max_rate < self.min_rate:
            most = ("limits.max_rate", str(self.max_rate))
            allowed = "the first at most the second"
            raise SettingError("limits.min_rate", str(self.min_rate), allowed, beside=most)
        for name in self.methods or ():
            check_method_name(name, key="limits.methods")
        return self
