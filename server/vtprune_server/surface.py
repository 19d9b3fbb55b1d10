"""The running server as the routes see it, through vLLM's own interfaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from vllm_pruner.settings.keys import settings_in
from vllm_pruner.settings.rules import ModelInfo
from vtprune_server.turns import Turns

if TYPE_CHECKING:
    from starlette.datastructures import State
    from vllm.engine.protocol import EngineClient
    from vllm.multimodal.parse import ImageSize

    from vllm_pruner.settings.in_tree import InTree
    from vllm_pruner.settings.server import ServerConfig

__all__ = ["ImageInfo", "Surface", "absent", "prunes"]


@runtime_checkable
class ImageInfo(ModelInfo, Protocol):
    """What the routes need to know of the model's images; implemented by
    `vllm_pruner.prompt.info.PrunedInfo`."""

    @property
    def in_tree(self) -> InTree | None:
        """How vLLM itself prunes the videos; None if it leaves them to us."""
        ...

    def image_tokens(self, size: ImageSize) -> int:
        """Return the number of visual tokens of an image of that size, unpruned."""
        ...

    def separators(self, size: ImageSize, mm_kwargs: Mapping[str, object]) -> int:
        """Return the number of the model's own rows, such as row breaks, in a pruned image."""
        ...

    def seen(self, item: Mapping[str, Any]) -> Any:
        """Return the pixels of a processed image as a tensor `[crops, 3, height, width]`, for a
        person to see."""
        ...

    def fresh_name(self, name: object) -> str:
        """Return a variant of a client's name for an image under which no cache has it."""
        ...

    def normalisation(self) -> tuple[Sequence[float], Sequence[float]]:
        """Return mean and standard deviation of each colour, with which pixels are normalised."""
        ...


@dataclass(frozen=True, slots=True)
class Surface:
    """One pruning server."""

    engine: EngineClient
    state: State
    """vLLM's state, with its handlers as attributes."""

    config: ServerConfig

    explaining: Turns = field(default_factory=lambda: Turns("/vtprune/explain", 1, waiting=32))
    estimating: Turns = field(default_factory=lambda: Turns("/vtprune/estimate", 1, waiting=32))
    comparing: Turns = field(default_factory=lambda: Turns("/vtprune/compare", 2, waiting=32))

    @property
    def chat(self) -> Any:
        """vLLM's handler of chat completions; None on a server that generates nothing."""
        return getattr(self.state, "openai_serving_chat", None)

    @property
    def renderer(self) -> Any:
        """vLLM's renderer, which makes the engine's input from a request."""
        return self.state.online_renderer

    @property
    def image_info(self) -> ImageInfo:
        """What the model's multimodal processor knows of its images."""
        return cast(ImageInfo, self.engine.renderer.get_mm_processor().info)

    async def ask_worker(self, method: str, *arguments: object) -> Any:
        """Call a method that vtprune adds to workers; return the answer of the first rank."""
        return (await self.engine.collective_rpc(method, args=arguments))[0]


def prunes(state: State) -> bool:
    """Whether a server was told to prune. One that only renders, or answers only text, has no
    `Surface`, and reads settings all the same.

    Args:
        state: vLLM's.
    """
    return settings_in(state.online_renderer.model_config.multimodal_config) is not None


def absent(state: State) -> str:
    """Return why a server has no `Surface`, as its routes say it."""
    if prunes(state):
        return "this server has no engine that takes images; allowed: one that does"
    return "this server does not prune; start it with --plugin vtprune"
