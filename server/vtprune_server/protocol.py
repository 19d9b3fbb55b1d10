"""Bodies of vtprune's routes, as the server's OpenAPI schema documents them."""

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
    """Docstrings of fields become their descriptions in the OpenAPI schema."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class _Body(_Described):
    """Forbids unknown keys: a misspelt one would be silently ignored."""

    model_config = ConfigDict(extra="forbid")


class ConfigResponse(_Described):
    """What this server does to images."""

    model: str
    architecture: str
    visual_tokens: int
    """Visual tokens of the largest image, unpruned."""

    settings: Annotated[dict[str, Any], Documented(ServerConfig)]
    """The settings of a request without its own, and those that no request can change."""

    shows_speed: bool
    """False if the decoder is so small that pruning does not make answers faster."""

    versions: dict[str, str]
    implementation: str
    """What the selection runs on, and why."""


class MethodCard(_Described):
    """One way of choosing tokens."""

    name: str
    allowed: bool
    """Whether a request to this server may choose it."""

    refused: str | None
    """Why not: the server's limits, or a model that does not support it."""

    reads_text: bool
    """Whether the kept tokens depend on the question about an image."""

    description: str
    options: dict[str, Any]
    """JSON schema."""


class MethodsResponse(_Described):
    """All methods, by name."""

    methods: list[MethodCard]
    video_methods: list[MethodCard]
    """Those that compare the frames of a video, to be chosen by `video_method`."""


class ImageSize(_Body):
    """An image, or only its size; then it counts as an image without print and plain areas."""

    width: Annotated[int, Field(ge=1, le=100_000)] | None = None
    height: Annotated[int, Field(ge=1, le=100_000)] | None = None
    url: Annotated[str, Field(pattern="^data:image/")] | None = None
    """The image itself, as a data URL in base64, instead of width and height."""

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
    """`text` if it keeps more than the rate says, because it has print, or `content`, because not
    all of it is plain."""


class EstimateResponse(_Described):
    """Visual tokens that the images would have."""

    images: list[ImageEstimate]
    original: int
    kept: int


class ExplainRequest(_Body):
    """A message with images or a video."""

    messages: Messages
    vtprune: Settings | None = None
    overlay: bool = True
    """Whether to draw each view with its kept patches."""


class View(_Described):
    """A picture as the tower saw it: the base crop, or the raster of the other crops."""

    rows: int
    columns: int
    kept: list[int]
    """The kept patches, in raster order."""

    importance: list[float] | None
    """Attention to each patch."""

    relevance: list[float] | None
    """How well each patch matches the text; None for a method that does not read it."""

    overlay: str | None
    """A PNG as a data URL, with dropped patches darkened; None if the model's tokens have no places
    in the picture."""


class Explanation(_Described):
    """What an image keeps, and why."""

    settings: Annotated[dict[str, Any], Documented(PruneConfig)]
    original: int
    kept: list[int]
    """Positions among the image's visual tokens, newline tokens included, ascending."""

    views: list[View]


class ExplainResponse(_Described):
    """One explanation for each image and each video; none for videos that vLLM prunes."""

    images: list[Explanation]
    videos: list[Explanation]
    """A view is a frame, or the two that the tower takes together; it is not drawn."""


class CompareRequest(_Body):
    """A message, and the settings under which to answer it."""

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
