"""The operator's settings: the defaults of requests, and what no request can change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Annotated, Any, Self

from pydantic import Field, ModelWrapValidatorHandler, model_validator

from vllm_pruner import methods
from vllm_pruner.settings.bounds import fault, method_fault, video_rate_fault
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.defaults import names_budget
from vllm_pruner.settings.detail import DetailRates
from vllm_pruner.settings.errors import SettingError
from vllm_pruner.settings.limits import Limits, Rate
from vllm_pruner.settings.load import Load
from vllm_pruner.settings.moving import moving_fault

__all__ = ["ServerConfig"]


class ServerConfig(PruneConfig):
    """The operator's settings."""

    feature_cache_mb: Annotated[int, Field(ge=0)] = 256
    """Device memory in MiB for a cache of the vision tower's output: another question, rate or
    method for a known image skips the tower. 0 turns it off."""

    tower_graphs: bool = True
    """Run the vision tower as CUDA graphs, captured at start, on NVIDIA GPUs: for LLaVA's families,
    and with vLLM's `cudagraph_mm_encoder` for all others but Kimi's, DeepSeek-V4, MiniCPM-V,
    MiniMax-M3, Command A Vision, Molmo2, Keye-VL, LFM2-VL, Step3-VL, Mistral's, Nemotron, Qwen-Omni
    and models that read documents; the server's own selection with all. `--enforce-eager` turns
    them off too. Images at rate 0 keep vLLM's own."""

    byte_pixels: bool = True
    """Decode JPEGs straight into arrays; and for models whose tower gets the same bits that way
    (LLaVA, LLaVA-NeXT), send images to the engine as bytes and normalise them on the device. false
    leaves all of it to Pillow and the model's processor."""

    jpeg_side: Annotated[int, Field(ge=64)] | None = None
    """Decode a JPEG at a half, a quarter or an eighth of its size if both sides then still have at
    least this many pixels, such as 336 for LLaVA-1.5. This saves most of the time that large
    photos take, and changes their pixels slightly; a model whose tokens depend on the image's size
    gets the smaller image. Default: all pixels."""

    rate_under_load: Rate | None = None
    """The highest rate under load: while requests wait or the KV cache fills up, the rate of images
    whose request names no budget rises to this one in three steps, and falls again afterwards.
    Default: the rate does not change."""

    load: Load = Field(default_factory=Load)
    """When the rate rises, and how soon it falls again."""

    detail: DetailRates = Field(default_factory=DetailRates)
    """Rates of OpenAI's `image_url.detail`; `auto` means the server's own settings."""

    limits: Limits = Field(default_factory=Limits)
    """What a request may ask for, such as `{"max_rate": 0.95, "methods": ["scope", "adafv"]}`. The
    server's own settings have to be within. Default: anything, with vtprune's own methods and the
    server's, for images of up to 120 million pixels with sides in a ratio of up to 500."""

    shadow: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    """Share of pruned chat completions that the server answers twice more, pruned and unpruned, up
    to 64 tokens each, once the client has its answer and while no request waits; `/metrics` shows
    how far the two agree. 0: none."""

    shadow_bound: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.0
    """Mean share of common tokens below which fifty such comparisons lower the server's own rate:
    half as many tokens again are kept, and a warning in the log says so. 0: the rate does not
    change."""

    shadow_log: str | None = None
    """File to which each such comparison is appended as a line of JSON, with the question and both
    answers; without it, none of them is stored."""

    @model_validator(mode="before")
    @classmethod
    def _own_methods_only(cls, data: Any) -> Any:
        """Fill in the methods that a request may choose if the operator did not: the built-in ones,
        which our tests hold to the contract, and the server's own."""
        if not isinstance(data, Mapping) or not isinstance(data.get("limits", {}), Mapping):
            return data
        limits = data.get("limits", {})
        if limits.get("methods") is not None:
            return data
        own = data.get("method", cls.model_fields["method"].default)
        names = methods.built_in()
        if own in methods.names() and own not in names:
            names.append(own)
        return {**data, "limits": {**limits, "methods": names}}

    @model_validator(mode="wrap")
    @classmethod
    def _within_limits(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Refuse defaults that a request could not ask for under the limits.

        Without a budget the model family's applies, which is not known here; the plugin writes it
        into the settings once it is.
        """
        config = handler(data)
        check = fault(config.limits, config) if names_budget(data) else None
        if names_budget(data) and not check:
            check = moving_fault(config.limits, config, config.rate_under_load, config.shadow_bound)
        check = check or video_rate_fault(config.limits, config)
        if found := check or method_fault(config.limits, config.method):
            raise found
        return config

    @model_validator(mode="after")
    def _sound_methods(self) -> ServerConfig:
        """Refuse to start with a broken method installed: a request could ask for it."""
        methods.check_installed()
        return self

    @model_validator(mode="after")
    def _shadow_to_log(self) -> Self:
        told = self.shadow_log or (f"{self.shadow_bound:g}" if self.shadow_bound else None)
        if told is not None and not self.shadow:
            key = "shadow_bound" if self.shadow_log is None else "shadow_log"
            beside = ("shadow", f"{self.shadow:g}")
            raise SettingError(key, told, "a shadow above 0", beside=beside)
        return self

    @classmethod
    def check_early(cls, settings: object) -> None:
        """Refuse what is wrong with an operator's settings for any model.

        A method or a budget that is not named is that of the model's family, which is not known
        yet; the plugin writes it into the settings once it is, and parses them again.

        Raises:
            ConfigError: the first fault.
        """
        if isinstance(settings, Mapping) and "method" not in settings:
            settings = dict(settings)
            if isinstance(settings.get("options"), Mapping):
                del settings["options"]
            if isinstance(limits := settings.get("limits"), Mapping):
                settings["limits"] = {**limits, "methods": None}
        cls.parse(settings)

    @classmethod
    def of(cls, settings: Mapping[str, object]) -> Self:
        """Return the result of `parse`, cached, for the operator's settings.

        Raises:
            ConfigError: the first fault.
        """
        try:
            text = json.dumps(settings, sort_keys=True)
        except (TypeError, ValueError):  # offline anything may be given; `parse` reports the fault
            return cls.parse(settings)
        return cls._of_text(text)

    @classmethod
    @lru_cache(maxsize=64)
    def _of_text(cls, text: str) -> Self:
        return cls.parse(json.loads(text))

    @property
    def prunes(self) -> bool:
        """Whether images or videos are pruned whose request does not ask for it."""
        own = not (self.off and self.of_video().off)
        return own or self.rate_under_load is not None

    @cached_property
    def images(self) -> PruneConfig:
        """The part that a request may change."""
        return PruneConfig.model_validate(self.model_dump(include=set(PruneConfig.model_fields)))
