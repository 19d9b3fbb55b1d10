"""The settings of one pruned image or video: validated once, at the edge, and immutable afterwards.

The command line, `LLM(mm_processor_kwargs={"vtprune": {...}})` and a request all become a
`PruneConfig`. The operator's travels through vLLM in `mm_processor_kwargs`, so every process sees
it. Its canonical text is part of a pruned image's identity, so different settings never share a
cache entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vllm_pruner import methods
from vllm_pruner.methods import foreign
from vllm_pruner.methods.base import Method, Need, Options
from vllm_pruner.methods.budget import Budget
from vllm_pruner.settings import advice
from vllm_pruner.settings.defaults import (
    BUDGETS,
    DEFAULT_METHOD,
    DEFAULT_RATE,
    floor_of,
    names_budget,
)
from vllm_pruner.settings.errors import ConfigError, SettingError, shown
from vllm_pruner.settings.limits import MethodName, Rate, VideoMethodName
from vllm_pruner.settings.validation import check_method_name, parse_options, validate

__all__ = ["PruneConfig"]


class PruneConfig(BaseModel):
    """Which method, how much, and with which options."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True
    )

    # The docstrings are shown to users: see `settings.setting`.

    method: MethodName = DEFAULT_METHOD
    """How tokens are chosen. Default: `scope` for LLaVA's families, `pixels` for models that read
    documents (GLM-OCR, PaddleOCR-VL, dots.ocr, LightOnOCR, DeepSeek-OCR), `vispruner` for all
    others."""

    rate: Rate | None = None
    """Fraction of each image's visual tokens removed, from 0 (off) to below 1. Default: 8/9
    (0.8889), which keeps 64 of the 576 tokens of LLaVA-1.5; 1/2 for families other than LLaVA;
    0.95 for all with the floor `content`, which `pixels` has."""

    tokens: Annotated[int, Field(ge=1)] | None = None
    """Visual tokens kept of each image, instead of a rate."""

    request_tokens: Annotated[int, Field(ge=1)] | None = None
    """Visual tokens kept of all images of a request together, instead of a rate. Print gets the
    most of them, plain areas the fewest, and an image's `detail` counts: `low` a quarter, `high`
    four times, `original` sixteen times."""

    floor: Literal["text", "content", "off"] = "text"
    """`text`: in an image with print, such as a page, a screenshot or a chart, the rate applies
    only to the cells without print, which are found from the pixels before the prompt is built.
    `content`: in every image it applies only to tokens of one brightness, such as margins and empty
    areas, so photographs keep nearly all of theirs; `pixels` has it unless another is set. A
    request with a budget of its own and another method has no floor unless it sets one. `off`: the
    rate is the same whatever an image shows."""

    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the method, such as `{"alpha": 0.5}` for `scope`."""

    crop_budget: Literal["joint", "per_crop"] = "joint"
    """`joint`: the crops of an image compete for one budget; `per_crop`: each has its share of it.
    No difference for a model whose images are one crop; always `per_crop` for Idefics3, SmolVLM,
    Llama 4, MiniCPM-V, Command A Vision, LFM2-VL and Step3-VL, whose prompt tells crops apart."""

    importance: Literal["attention", "merger_norm"] = "attention"
    """What the importance of a token is, to methods that rank by it. `attention`: what it receives
    in the vision tower; `merger_norm`: the norm of its patches as they come to the tower's merger,
    for models that merge patches into tokens."""

    positions: Literal["original", "compact"] = "original"
    """For models whose positions have rows and columns (Qwen-VL, MiniCPM-V 4.7). `original`: a kept
    token keeps its position in the picture; `compact`: positions are those of a picture only as
    large as what is kept. No difference for a model with one-dimensional positions."""

    video_method: VideoMethodName | None = None
    """How the tokens of videos are chosen: `evs` and `vidcom2` compare frames; a method for images
    chooses in each frame, with equal shares. Default: the method for images."""

    video_rate: Rate | None = None
    """Fraction of each video's visual tokens removed, over all of its frames; 0 keeps videos
    unpruned. Default: the budget for images."""

    grounding: Literal["off", "on", "forced"] = "off"
    """`on`: for answers that say where things are. Kept tokens keep their positions in the picture,
    and each image keeps at least 1,024 tokens, or all of a smaller one; a request's own budget
    below that is refused. `forced`: the same without the minimum."""

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

    @model_validator(mode="before")
    @classmethod
    def _floor_of_method(cls, data: Any) -> Any:
        """Fill in the default floor, which depends on the method."""
        return {**data, "floor": floor_of(data)} if isinstance(data, Mapping) else data

    @model_validator(mode="after")
    def _known_method(self) -> PruneConfig:
        if not methods.compares_frames(self.method):  # which only `of_video` may set
            check_method_name(self.method)
        if self.video_method is not None:
            check_method_name(self.video_method, "video_method", videos=True)
        parse_options(methods.get(self.method), self.options)
        return self

    @model_validator(mode="after")
    def _true_positions(self) -> PruneConfig:
        """Refuse grounding with compact positions: boxes and points depend on positions."""
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
        """Return the settings of an image, without those for videos."""
        return self._of_image

    @cached_property
    def _of_image(self) -> PruneConfig:
        return self.model_copy(update={"video_method": None, "video_rate": None})

    def of_video(self) -> PruneConfig:
        """Return the settings of a video: its method and rate in place of those for images."""
        changes: dict[str, Any] = {"floor": "off", "grounding": "off"}
        if self.video_rate is not None:
            changes |= dict.fromkeys(BUDGETS) | {"rate": self.video_rate}
        if self.video_method not in (None, self.method):
            changes |= {"method": self.video_method, "options": {}}
        return self.of_image().model_copy(update=changes)

    @property
    def off(self) -> bool:
        """Whether nothing is pruned, so that the image takes vLLM's own path."""
        return self.rate == 0.0

    @property
    def importance_need(self) -> Need:
        """What the tower has to return as importance."""
        return Need.MERGER_NORM if self.importance == "merger_norm" else Need.IMPORTANCE

    @property
    def needs(self) -> frozenset[Need]:
        """What the method reads besides the features, with the importance of these settings."""
        needs = self.resolved[0].needs
        if Need.IMPORTANCE not in needs:
            return needs
        return needs - {Need.IMPORTANCE} | {self.importance_need}

    def keep_count(self, tokens: int) -> int:
        """Return how many of an image's `tokens` visual tokens are kept. A budget for all images of
        a request is taken to be for this one alone.

        Raises:
            MethodFault: the method, of another package, returns no valid number.
        """
        method = methods.get(self.method)
        budget = Budget(self.rate, self.tokens or self.request_tokens)
        if methods.package_of(self.method) is None:
            return method.keep_count(tokens, budget)
        return foreign.keep_count(method, tokens, budget)

    def check_counts(self, tokens: int) -> None:
        """Ask a method of another package for everything that a prompt depends on.

        Args:
            tokens: visual tokens of the image, unpruned.

        Raises:
            MethodFault: an answer is invalid.
        """
        if not self.off and methods.package_of(self.method) is not None:
            foreign.shrink(methods.get(self.method), self.keep_count(tokens))

    def canonical(self) -> str:
        """Return the settings as JSON, equal for equal settings: it is hashed, and the model reads
        it.

        Options are written out with their defaults, so `{}` and `{"alpha": 1.0}` do not differ.
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
        """Return the settings of a `canonical` text, parsed once per distinct text."""
        return PruneConfig.model_validate_json(text)

    @cached_property
    def unfloored(self) -> PruneConfig:
        """The same settings without a floor."""
        return self.model_copy(update={"floor": "off"})

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy without the cached properties of the original."""
        copied = super().model_copy(update=update, deep=deep)
        for name in ("_canonical", "_of_image", "unfloored", "resolved"):
            vars(copied).pop(name, None)
        return copied

    @cached_property
    def resolved(self) -> tuple[Method, Options]:
        """The method and its validated options."""
        method = methods.get(self.method)
        return method, parse_options(method, self.options)
