"""A client of one server, and unique pictures."""

from __future__ import annotations

import base64
import io
import random
from typing import Any

import httpx
import psutil
from PIL import Image
from vllm_process import VllmProcess

__all__ = ["Client", "body", "picture"]

CHAT = "/v1/chat/completions"


class Client:
    """A client of one server."""

    def __init__(self, server: VllmProcess) -> None:
        self.server = server
        self._http = httpx.Client(base_url=server.url, timeout=300)

    def chat(self, *pictures: bytes, **more: Any) -> httpx.Response:
        return self._http.post(CHAT, json=body(*pictures, **more))

    def leave(self, sent: bytes, seconds: float) -> None:
        """Ask for a long answer about a picture, and hang up after some seconds."""
        asked = body(sent, stream=True, max_tokens=200)
        url = self.server.url + CHAT
        try:
            with httpx.stream("POST", url, json=asked, timeout=seconds) as response:
                for _ in response.iter_raw():
                    pass
        except httpx.TransportError:
            pass

    def explain(self, *pictures: bytes) -> httpx.Response:
        asked = {"messages": body(*pictures)["messages"], "overlay": False}
        return self._http.post("/vtprune/explain", json=asked)

    def metric(self, name: str) -> float:
        lines = self._http.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    def memory(self) -> float:
        """Return the unshared memory (USS) of the server's processes in MB."""
        root = psutil.Process(self.server.pid)
        processes = [root, *root.children(recursive=True)]
        return sum(process.memory_full_info().uss for process in processes) / 2**20


def body(*pictures: bytes, **more: Any) -> dict[str, Any]:
    """Return the body of a chat completion request about pictures."""
    urls = ["data:image/png;base64," + base64.b64encode(file).decode() for file in pictures]
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    content = [*parts, {"type": "text", "text": "What is in it?"}]
    messages = [{"role": "user", "content": content}]
    return {"model": "demo", "messages": messages, "max_tokens": 8, "temperature": 0, **more}


def picture(seed: object, width: int = 64, height: int = 48) -> bytes:
    """Return a PNG that is unique to its seed."""
    file = io.BytesIO()
    pixels = random.Random(str(seed)).randbytes(width * height * 3)
    Image.frombytes("RGB", (width, height), pixels).save(file, "PNG")
    return file.getvalue()
