"""The operator's settings: those of images without their own, and what no request changes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from vllm_pruner import methods
from vllm_pruner.settings.bounds import fault
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.detail import DetailRates
from vllm_pruner.settings.limits import Limits

__all__ = ["ServerConfig"]


class ServerConfig(PruneConfig):
    """What the operator sets."""

    feature_cache_mb: Annotated[int, Field(ge=0)] = 256
    """MiB on the device for features of known images, so that another question, rate or method
    about them skips the tower; 0 keeps none."""

    detail: DetailRates = Field(default_factory=DetailRates)
    """Rates of OpenAI's `image_url.detail`."""

    limits: Limits = Field(default_factory=Limits)
    """Bounds of what a request may ask for."""

    @model_validator(mode="after")
    def _within_limits(self) -> ServerConfig:
        """The default of every request has to be one that a request could name."""
        if found := fault(self.limits, self):
            raise found
        return self

    @model_validator(mode="after")
    def _sound_methods(self) -> ServerConfig:
        """Refuse to start beside a package whose method is broken: a request could ask for it."""
        methods.check_installed()
        return self

    @property
    def images(self) -> PruneConfig:
        """The part that a request may change."""
        return PruneConfig.model_validate(self.model_dump(include=set(PruneConfig.model_fields)))
