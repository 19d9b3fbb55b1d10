"""A server that renders prompts, without an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
from forked import ForkedProcess
from vllm_process import VllmProcess

__all__ = ["Renderer"]

_BODY = {"model": "demo", "max_tokens": 6, "temperature": 0, "ignore_eos": True}


class Renderer(VllmProcess):
    """A `vllm launch render`, forked from `launcher.py`."""

    def __init__(self, log: Path, model: str, *arguments: str, **env: str) -> None:
        super().__init__(log, model, *arguments, **env)
        at = self._command.index("serve")
        self._command[at : at + 1] = ["launch", "render"]

    def _launch(self, log: int) -> Any:
        return ForkedProcess(self._command, self._environment, log, log)

    def render(self, content: Any, **body: Any) -> httpx.Response:
        """Ask for the tokens of a message."""
        messages = [{"role": "user", "content": content}]
        asked = {**_BODY, "messages": messages, **body}
        return httpx.post(f"{self.url}/v1/chat/completions/render", json=asked, timeout=300)
