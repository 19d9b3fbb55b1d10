"""Bodies of vtprune's routes, as they stand in the server's OpenAPI."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.server import ServerConfig
from vtprune_server.documented import Documented, of_request

__all__ = [
    "Answer",
    "CompareRequest",
    "CompareResponse",
    "ConfigResponse",
    "EstimateRequest",
    "EstimateResponse",
    "ExplainRequest",
    "ExplainResponse",
    "Explanation",
    "ImageEstimate",
    "ImageSize",
    "MethodCard",
    "MethodsResponse",
    "View",
]

Settings = Annotated[dict[str, Any], Documented(of_request(PruneConfig))]
Messages = Annotated[
    list[dict[str, Any]],
    Field(min_length=1, max_length=64, description="as in a chat completion"),
]


class _Described(BaseModel):
    """The docstrings of the fields are their descriptions in the OpenAPI."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class _Body(_Described):
    """No unknown keys: a misspelt one would be ignored in silence."""

    model_config = ConfigDict(extra="forbid")


class ConfigResponse(_Described):
    """What this server does to images."""

    model: str
    architecture: str
    visual_tokens: int
    """Of the largest image, unpruned."""

    settings: Annotated[dict[str, Any], Documented(ServerConfig)]
    """Those of a request that says nothing, and what no request changes."""

    shows_speed: bool
    """False for a decoder of so few parameters that answers take as long without pruning."""

    versions: dict[str, str]
    implementation: str
    """What the selection runs on, and why."""


class MethodCard(_Described):
    """One way of choosing tokens."""

    name: str
    allowed: bool
    """Whether a request to this server may choose it."""

    refused: str | None
    """Why not: the server's limits, or a model that cannot be pruned by it."""

    reads_text: bool
    """Whether another question about an image keeps other tokens."""

    description: str
    options: dict[str, Any]
    """JSON schema."""


class MethodsResponse(_Described):
    """All methods, by name."""

    methods: list[MethodCard]


class ImageSize(_Body):
    """An image, or its size alone: then it counts as one without print, neither plain nor full."""

    width: Annotated[int, Field(ge=1, le=100_000)] | None = None
    height: Annotated[int, Field(ge=1, le=100_000)] | None = None
    url: Annotated[str, Field(pattern="^data:image/")] | None = None
    """The image itself, in base64, instead of width and height."""

    detail: str = "auto"

    @model_validator(mode="after")
    def _one_of_the_two(self) -> ImageSize:
        sizes = (self.width, self.height)
        if None in sizes if self.url is None else sizes != (None, None):
            raise ValueError("an image has width and height, or a url")
        return self


class EstimateRequest(_Body):
    """Images of one request."""

    images: Annotated[list[ImageSize], Field(min_length=1, max_length=1024)]
    vtprune: Settings | None = None


class ImageEstimate(_Described):
    """Visual tokens of one image."""

    original: int
    kept: int
    floor: str | None
    """`text` if it keeps more than was asked for, because it has print."""


class EstimateResponse(_Described):
    """Visual tokens that the images would have."""

    images: list[ImageEstimate]
    original: int
    kept: int


class ExplainRequest(_Body):
    """A message with images."""

    messages: Messages
    vtprune: Settings | None = None
    overlay: bool = True
    """Whether to draw."""


class View(_Described):
    """A picture as the tower saw it: the base crop, or the raster of all other crops."""

    rows: int
    columns: int
    kept: list[int]
    """Patches, in raster order."""

    importance: list[float] | None
    """Attention to each patch."""

    relevance: list[float] | None
    """How well each patch matches the text; None for a method that does not read it."""

    overlay: str | None
    """A PNG as a data URL: what is dropped is in the dark."""


class Explanation(_Described):
    """Why an image keeps what it keeps."""

    settings: Annotated[dict[str, Any], Documented(PruneConfig)]
    original: int
    kept: list[int]
    """Positions among the image's visual tokens, ascending; newline tokens of a raster count."""

    views: list[View]


class ExplainResponse(_Described):
    """One explanation for each image."""

    images: list[Explanation]


class CompareRequest(_Body):
    """A message, and the settings to answer it with."""

    messages: Messages
    settings: Annotated[list[Settings], Field(min_length=1, max_length=8)]
    max_tokens: Annotated[int, Field(ge=1, le=1024)] = 64


class Answer(_Described):
    """The answer under one of the settings."""

    settings: Settings
    text: str
    usage: dict[str, Any]
    seconds_to_first_token: float
    seconds: float


class CompareResponse(_Described):
    """The answers, in the order of the settings."""

    answers: list[Answer]
