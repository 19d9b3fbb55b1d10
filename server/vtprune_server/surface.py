"""What the routes work with: the running server, behind vLLM's own interfaces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.datastructures import State
    from vllm.engine.protocol import EngineClient

    from vllm_pruner.settings.server import ServerConfig

__all__ = ["Surface"]


@dataclass(frozen=True, slots=True)
class Surface:
    """One pruning server."""

    engine: EngineClient
    state: State
    """vLLM's: its handlers are attributes of it."""

    config: ServerConfig

    @property
    def chat(self) -> Any:
        """vLLM's handler of chat completions."""
        return self.state.openai_serving_chat

    @property
    def renderer(self) -> Any:
        """Makes the engine's input of a request."""
        return self.state.online_renderer

    @property
    def processor_info(self) -> Any:
        """What the model's multimodal processor knows of its images."""
        return self.engine.renderer.get_mm_processor().info

    async def ask_worker(self, method: str, *arguments: object) -> Any:
        """Call a method that vtprune adds to every worker; the answer of the first rank."""
        return (await self.engine.collective_rpc(method, args=arguments))[0]
