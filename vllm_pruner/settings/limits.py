"""How far a request may move from the operator's settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vllm_pruner import methods
from vllm_pruner.settings.errors import SettingError
from vllm_pruner.settings.validation import check_method_name

__all__ = ["MOST_PIXELS", "Limits", "MethodName", "Rate", "VideoMethodName"]

Rate = Annotated[float, Field(ge=0.0, lt=1.0, allow_inf_nan=False)]
"""Fraction of an image's visual tokens removed."""

MethodName = Annotated[
    str, Field(json_schema_extra=lambda schema: schema.update(enum=list(methods.names())))
]
"""The name of an installed method for images; `check_method_name` validates it."""

VideoMethodName = Annotated[
    str,
    Field(
        json_schema_extra=lambda schema: schema.update(
            enum=[*methods.names(methods.VIDEO_GROUP), *methods.names()]
        )
    ),
]
"""The name of an installed method for videos or images."""

MOST_PIXELS = 178_956_970
"""Most pixels of an image that Pillow opens and vLLM decodes."""


class Limits(BaseModel):
    """What a request may ask for; by default everything that the settings themselves allow, with
    this package's methods."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True
    )

    min_rate: Rate = 0.0
    """Lowest rate of a request; above 0, none can turn pruning off."""

    max_rate: Rate | None = None
    """Highest rate of a request."""

    methods: list[MethodName] | None = None
    """Names of the methods that a request may choose; vtprune's own and the server's if null."""
    # `ServerConfig` fills it in: installing a package does not open its methods to every client.

    min_tokens: Annotated[int, Field(ge=1)] = 1
    """Fewest visual tokens that an image keeps; a smaller image keeps all."""

    max_pixels: Annotated[int, Field(ge=1, le=MOST_PIXELS)] = 120_000_000
    """Most pixels of an image, checked before it is decoded. The largest common photographs from
    phones have 108 million."""

    max_video_pixels: Annotated[int, Field(ge=1)] = 2_000_000_000
    """Most pixels of all frames together that vLLM keeps of a video, checked before they are
    decoded; a frame is held against the limits of an image too. 768 frames of full HD have 1.6
    billion."""

    max_side_ratio: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 500.0
    """Largest ratio of an image's longer side to its shorter one. A processor may first scale the
    shorter side to a fixed size, which turns a line of pixels into billions; 1 x 500 scaled to 448
    has 100 million. Qwen-VL's processors refuse ratios above 200."""

    @model_validator(mode="after")
    def _possible(self) -> Limits:
        if self.max_rate is not None and self.max_rate < self.min_rate:
            most = ("limits.max_rate", str(self.max_rate))
            allowed = "the first at most the second"
            raise SettingError("limits.min_rate", str(self.min_rate), allowed, beside=most)
        for name in self.methods or ():
            check_method_name(name, key="limits.methods")
        return self
