"""Parse a streamed chat completion: its text, the times of its pieces, and whether it is complete.

Independent of locust and sockets: it is fed the lines of a response body one by one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Answer", "AnswerError", "StreamReader", "refusal"]


class AnswerError(Exception):
    """An unusable answer; the message says why, and locust groups failures by it."""


@dataclass(slots=True)
class Answer:
    """One complete answer. Times are seconds since the request was sent."""

    text: str = ""
    arrivals: list[float] = field(default_factory=list)
    """When each piece of text arrived, ascending; a piece is one token or a few."""

    total: float = 0.0
    """When the stream ended."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def first_token(self) -> float:
        """Time to the first piece of text (TTFT)."""
        return self.arrivals[0]

    @property
    def gaps(self) -> list[float]:
        """Seconds between consecutive pieces (ITL); empty if there is only one."""
        return [b - a for a, b in zip(self.arrivals, self.arrivals[1:], strict=False)]

    @property
    def tokens_per_second(self) -> float:
        """Output tokens over the total time, including the time to the first token."""
        return self.completion_tokens / self.total


class StreamReader:
    """Turns the lines of one server-sent event stream into an `Answer`."""

    def __init__(self) -> None:
        self.answer = Answer()
        self._finish_reason: str | None = None
        self._done = False

    def feed(self, line: bytes, now: float) -> None:
        """Take one line of the body, which came `now` seconds after the request was sent.

        Raises:
            AnswerError: the line is not a server-sent event, its data is not a chunk of a chat
                completion, or it is an error message from the server.
        """
        line = line.strip()
        if not line or line.startswith(b":"):  # the end of an event, or a keep-alive comment
            return
        if self._done:
            raise AnswerError("the stream goes on after [DONE]")
        if not line.startswith(b"data:"):
            raise AnswerError("a line of the stream is not data")
        data = line.removeprefix(b"data:").strip()
        if data == b"[DONE]":
            self._done = True
        else:
            self._take(_parse(data), now)

    def _take(self, chunk: dict[str, Any], now: float) -> None:
        if "error" in chunk:
            raise AnswerError(f"an error in the stream: {_message(chunk)}")
        try:
            for choice in chunk["choices"]:
                if text := choice["delta"].get("content"):
                    self.answer.text += text
                    self.answer.arrivals.append(now)
                self._finish_reason = choice.get("finish_reason") or self._finish_reason
            if usage := chunk.get("usage"):
                self.answer.prompt_tokens = int(usage["prompt_tokens"])
                self.answer.completion_tokens = int(usage["completion_tokens"])
        except (KeyError, TypeError, AttributeError) as error:
            raise AnswerError("an event is not a chunk of a chat completion") from error

    def finish(self, now: float, tokens: int | None = None) -> Answer:
        """Return the answer once the body has ended.

        Args:
            now: seconds since the request was sent.
            tokens: how many tokens the answer must have, if the request fixed that.

        Raises:
            AnswerError: the stream is incomplete, is empty, or has another length.
        """
        answer = self.answer
        if not self._done:
            raise AnswerError("the stream ended without [DONE]")
        if not answer.text:
            raise AnswerError("the answer is empty")
        if not self._finish_reason:
            raise AnswerError("the answer has no finish_reason")
        if not answer.completion_tokens:
            raise AnswerError("the stream reports no usage")
        if tokens is not None and answer.completion_tokens != tokens:
            raise AnswerError(f"{tokens} tokens were asked for, not {answer.completion_tokens}")
        answer.total = now
        return answer


def refusal(status: int, body: bytes) -> AnswerError:
    """Return the error for a response with a status other than 200."""
    try:
        return AnswerError(f"HTTP {status}: {_message(json.loads(body))}")
    except (ValueError, TypeError, KeyError):
        return AnswerError(f"HTTP {status}")


def _parse(data: bytes) -> dict[str, Any]:
    try:
        chunk = json.loads(data)
    except ValueError as error:
        raise AnswerError("an event is not JSON") from error
    if not isinstance(chunk, dict):
        raise AnswerError("an event is not a chunk of a chat completion")
    return chunk


def _message(body: dict[str, Any]) -> str:
    """Return the message of an error in OpenAI's format, short enough for a table."""
    return str(body["error"]["message"]).splitlines()[0][:200]
