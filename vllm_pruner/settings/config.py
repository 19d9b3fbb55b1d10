"""The settings of one pruned image or video: validated once, at the edge, and immutable afterwards.

The command line, `LLM(mm_processor_kwargs={"vtprune": {...}})` and a request all end in the same
`PruneConfig`. It travels through vLLM inside `mm_processor_kwargs`, so every process sees it, and
its canonical text enters vLLM's hash of an image, so no two settings share a cache entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vllm_pruner import methods
from vllm_pruner.methods import foreign
from vllm_pruner.methods.base import Method, Options
from vllm_pruner.methods.budget import Budget
from vllm_pruner.settings import advice
from vllm_pruner.settings.errors import ConfigError, SettingError, shown
from vllm_pruner.settings.limits import MethodName, Rate, VideoMethodName
from vllm_pruner.settings.validation import check_method_name, parse_options, validate

__all__ = ["BUDGETS", "DEFAULT_RATE", "PruneConfig", "names_budget"]

BUDGETS = ("rate", "tokens", "request_tokens")
"""The keys that say how much is kept, of which settings have one."""

DEFAULT_RATE = 8 / 9
"""64 of 576 tokens of LLaVA-1.5: VisPruner keeps 92.8 % (RESTORE's re-run) to 96.6 % (its authors)
of the model's scores there, LLaVA-1.5-7B."""


def names_budget(data: Mapping[str, object]) -> bool:
    """Return whether settings say how much is kept; otherwise the model family does."""
    return any(data.get(key) is not None for key in BUDGETS)


class PruneConfig(BaseModel):
    """Which method, how much, and with which options."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True
    )

    # The docstrings are shown to users: see `settings.setting`.

    method: MethodName = "vispruner"
    """How tokens are chosen."""

    rate: Rate | None = None
    """Fraction of each image's visual tokens removed, from 0 (off) to below 1. Default: 8/9
    (0.8889), which keeps 64 of the 576 tokens of LLaVA-1.5; 1/2 for families other than LLaVA."""

    tokens: Annotated[int, Field(ge=1)] | None = None
    """Visual tokens kept of each image, instead of a rate."""

    request_tokens: Annotated[int, Field(ge=1)] | None = None
    """Visual tokens kept of all images of a request together, instead of a rate. Print gets most of
    them, what is plain the least, and `detail` weighs: `low` a quarter, `high` four times."""

    floor: Literal["text", "off"] = "text"
    """`text`: of an image with print, such as a page, a screenshot or a chart, the cells of print
    are not counted in what the rate removes; known from the pixels, before the prompt is built. A
    request with a budget of its own has no floor unless it names it too. `off`: the rate is the
    same whatever an image shows."""

    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the method, such as `{"important_ratio": 0.75}`."""

    crop_budget: Literal["joint", "per_crop"] = "joint"
    """`joint`: the crops of an image compete for one budget; `per_crop`: each has its share of it.
    The same for a model whose images are one crop; always `per_crop` for Idefics3 and SmolVLM,
    whose prompt names each crop."""

    positions: Literal["original", "compact"] = "original"
    """Where positions have rows and columns (Qwen-VL). `original`: a kept token stays where it is
    in the picture; `compact`: tokens and text stand as if the picture were as small as what is kept
    of it. The same for a model that numbers tokens one by one."""

    video_method: VideoMethodName | None = None
    """How the tokens of videos are chosen: `evs` and `vidcom2` compare frames; a method of images
    looks at each frame, all with equal shares. Default: the method of images."""

    video_rate: Rate | None = None
    """Fraction of each video's visual tokens removed, over all of its frames; 0 leaves videos
    whole. Default: what holds for images."""

    grounding: Literal["off", "on", "forced"] = "off"
    """`on`: answers say where things are, so kept tokens stay where they are in the picture, and
    each image keeps 1,024 tokens or all of a smaller one; a request's own budget below that is
    refused. `forced`: the same with no such number."""

    @model_validator(mode="before")
    @classmethod
    def _one_budget(cls, data: Any) -> Any:
        """Fill in the default rate; refuse two budgets."""
        if not isinstance(data, Mapping):
            off = "; to turn pruning off: {'rate': 0}" if advice.off(data) else ""
            raise ConfigError(
                f"settings are {shown(repr(data))}; allowed: an object such as {{'rate': 0.9}}{off}"
            )
        given = [(key, repr(data[key])) for key in BUDGETS if data.get(key) is not None]
        if len(given) > 1:
            raise SettingError(*given[0], "one of the two", beside=given[1])
        return data if names_budget(data) else {**data, "rate": DEFAULT_RATE}

    @model_validator(mode="after")
    def _known_method(self) -> PruneConfig:
        if not methods.compares_frames(self.method):  # as only `of_video` has it
            check_method_name(self.method)
        if self.video_method is not None:
            check_method_name(self.video_method, "video_method", videos=True)
        parse_options(methods.get(self.method), self.options)
        return self

    @model_validator(mode="after")
    def _true_positions(self) -> PruneConfig:
        """Boxes and points are read off positions."""
        if self.grounding != "off" and self.positions != "original":
            beside = ("grounding", repr(self.grounding))
            raise SettingError("positions", repr(self.positions), "original", beside=beside)
        return self

    @classmethod
    def parse(cls, data: object) -> Self:
        """Validate settings from outside.

        Raises:
            ConfigError: the first fault.
        """
        config = validate(cls, data)
        check_method_name(config.method)
        return config

    def of_image(self) -> PruneConfig:
        """Return what is done to an image, without what is for videos."""
        return self.model_copy(update={"video_method": None, "video_rate": None})

    def of_video(self) -> PruneConfig:
        """Return what is done to a video: its method and rate in the place of those of images."""
        changes: dict[str, Any] = {"floor": "off", "grounding": "off"}
        if self.video_rate is not None:
            changes |= dict.fromkeys(BUDGETS) | {"rate": self.video_rate}
        if self.video_method not in (None, self.method):
            changes |= {"method": self.video_method, "options": {}}
        return self.of_image().model_copy(update=changes)

    @property
    def off(self) -> bool:
        """Whether nothing is to be pruned: the image takes vLLM's own path."""
        return self.rate == 0.0

    def keep_count(self, tokens: int) -> int:
        """Tokens kept of an image that has `tokens`; the only one of its request, if that has a
        budget for all.

        Raises:
            MethodFault: the method, of another package, names no such number.
        """
        method = methods.get(self.method)
        budget = Budget(self.rate, self.tokens or self.request_tokens)
        if methods.package_of(self.method) is None:
            return method.keep_count(tokens, budget)
        return foreign.keep_count(method, tokens, budget)

    def check_counts(self, tokens: int) -> None:
        """Ask a method of another package all that a prompt depends on.

        Args:
            tokens: of the image.

        Raises:
            MethodFault: an answer cannot be.
        """
        if not self.off and methods.package_of(self.method) is not None:
            foreign.shrink(methods.get(self.method), self.keep_count(tokens))

    def canonical(self) -> str:
        """The same text for the same settings: what vLLM hashes and what the model reads.

        Options are written out with their defaults, so `{}` and `{"step": 8}` do not differ.
        """
        return self._canonical

    @cached_property
    def _canonical(self) -> str:
        fields = self.model_dump(exclude_none=True)
        fields["options"] = dict(sorted(self.resolved[1].model_dump().items()))
        return type(self).model_construct(**fields).model_dump_json(exclude_none=True)

    @staticmethod
    @lru_cache(maxsize=1024)
    def from_canonical(text: str) -> PruneConfig:
        """The inverse of `canonical`, parsed once per distinct text."""
        return PruneConfig.model_validate_json(text)

    @cached_property
    def unfloored(self) -> PruneConfig:
        """The same settings without a floor."""
        return self.model_copy(update={"floor": "off"})

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy, with nothing of what was reckoned from other values."""
        copied = super().model_copy(update=update, deep=deep)
        for name in ("_canonical", "unfloored", "resolved"):
            vars(copied).pop(name, None)
        return copied

    @cached_property
    def resolved(self) -> tuple[Method, Options]:
        """The method and its validated options."""
        method = methods.get(self.method)
        return method, parse_options(method, self.options)
