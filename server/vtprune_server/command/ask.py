"""A question to a running server, and what it said instead of an answer."""

from __future__ import annotations

import base64
import json
import mimetypes
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

__all__ = ["Asked", "CommandError", "data_url"]

_SECONDS = 300


class CommandError(Exception):
    """What a command ends with: one sentence for the person who gave it."""


class Asked(NamedTuple):
    """The server that is asked."""

    url: str
    """Without a path: `http://localhost:8000`."""

    api_key: str
    """Empty if it wants none."""

    def get(self, path: str) -> dict[str, Any]:
        """Return what a route answers.

        Raises:
            CommandError: there is no server, or it refuses.
        """
        return self._answer(path, None)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return what a route answers to a body.

        Raises:
            CommandError: there is no server, or it refuses.
        """
        return self._answer(path, json.dumps(body).encode())

    def _answer(self, path: str, body: bytes | None) -> dict[str, Any]:
        key = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        headers = {"Content-Type": "application/json", **key}
        try:
            request = Request(self.url.rstrip("/") + path, body, headers)
            with urlopen(request, timeout=_SECONDS) as response:
                answer: dict[str, Any] = json.load(response)
                return answer
        except HTTPError as error:
            raise CommandError(f"{self.url} refuses: {_sentence(error)}") from None
        except (URLError, ValueError, OSError) as error:
            reason = getattr(error, "reason", error)
            raise CommandError(
                f"no answer from {self.url} ({reason}); allowed: --url of a server that was "
                "started by `vllm serve MODEL --plugin vtprune`"
            ) from None


def _sentence(error: HTTPError) -> str:
    """What an error's body says, in OpenAI's form or FastAPI's."""
    try:
        body = json.load(error)
        return str(body["error"]["message"] if "error" in body else body["detail"])
    except (ValueError, KeyError, TypeError):
        return f"status {error.code}"


def data_url(file: Path) -> str:
    """Return an image as a URL that holds it.

    Raises:
        CommandError: it cannot be read.
    """
    kind = mimetypes.guess_type(file.name)[0] or "image/jpeg"
    try:
        data = base64.b64encode(file.read_bytes()).decode()
    except OSError as error:
        raise CommandError(f"{file} cannot be read ({error.strerror})") from None
    return f"data:{kind};base64,{data}"
