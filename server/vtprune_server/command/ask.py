"""Ask a running server, and turn its errors into sentences."""

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
    """Ends a command with one sentence for its user."""


class Asked(NamedTuple):
    """A server to ask."""

    url: str
    """Without a path: `http://localhost:8000`."""

    api_key: str
    """Empty if the server has none."""

    def get(self, path: str) -> dict[str, Any]:
        """Return the JSON that a route answers.

        Raises:
            CommandError: no server answers, or it refuses the request.
        """
        return self._answer(path, None)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return the JSON that a route answers to a body.

        Raises:
            CommandError: no server answers, or it refuses the request.
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
    """Return the message in an error's body, in OpenAI's or FastAPI's format."""
    try:
        body = json.load(error)
        return str(body["error"]["message"] if "error" in body else body["detail"])
    except (ValueError, KeyError, TypeError):
        return f"status {error.code}"


def data_url(file: Path) -> str:
    """Return an image file as a data URL.

    Raises:
        CommandError: the file cannot be read.
    """
    kind = mimetypes.guess_type(file.name)[0] or "image/jpeg"
    try:
        data = base64.b64encode(file.read_bytes()).decode()
    except OSError as error:
        raise CommandError(f"{file} cannot be read ({error.strerror})") from None
    return f"data:{kind};base64,{data}"
