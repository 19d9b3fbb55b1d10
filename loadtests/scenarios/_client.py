"""A user that asks over HTTP, reads the stream, and reports its measurements as locust events.

Every answer becomes `request` events of several types under the scenario's name:

- `CHAT`: milliseconds to the end of the answer; the only type with failures;
- `TTFT`: milliseconds to the first text;
- `ITL`: milliseconds between two pieces of text, one event per gap;
- `TOKENS/S`: output tokens per second of this answer (a rate, not a time);
- `GOOD`: as `CHAT`, for answers within the objectives; its requests per second are the goodput.

locust's own client is not used because it reads streams in blocks of 1024 bytes, which hides the
first token; geventhttpclient, on which it is built, reads line by line. Every request opens its own
connection, because a kept-alive one that the server has just closed would count as a failure.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import statistics
import time
from collections.abc import Sequence
from typing import Any

import _answers  # noqa: F401  # its listener writes them
import _options  # noqa: F401  # its listener adds the flags
import gevent
from _media import Media
from _native_thread import in_thread
from _stream import Answer, AnswerError, StreamReader, refusal
from gevent.event import AsyncResult
from gevent.pool import Pool
from geventhttpclient import HTTPClient
from geventhttpclient.response import HTTPParseError
from locust import User, task

__all__ = ["ChatUser", "Message"]

Message = dict[str, Any]
TIMEOUT = 600.0
"""Seconds without data after which a request has failed."""

_numbers = itertools.count()


class ChatUser(User):  # type: ignore[misc]  # locust has no annotations
    """Visits the server repeatedly; a scenario defines what a visit is."""

    abstract = True

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.options = environment.parsed_options
        self.name = type(self).__name__
        worker = getattr(environment.runner, "worker_index", 0)
        seed = f"{self.options.seed}/{worker}/{next(_numbers)}"
        self._arrival = random.Random(seed)
        self._visits = (
            Media(f"{seed}/{visit}", self.options.pictures) for visit in itertools.count()
        )
        self._ahead = self._prepare()
        self._in_flight = Pool()

    def visit(self, media: Media) -> None:
        """Ask at least once; pictures and texts come from `media`, which is new for every visit."""
        raise NotImplementedError

    def ask(self, messages: Sequence[Message], name: str | None = None) -> str:
        """Send a conversation, report what came back, and return the answer's text.

        Args:
            messages: OpenAI's messages.
            name: the name to report it under; None for the scenario's name.

        Raises:
            AnswerError: the request failed; this has been reported, and the visit ends.
        """
        body, name = self._body(messages), name or self.name
        sent, start = time.time(), time.perf_counter()
        try:
            answer = self._send(body, start)
        except AnswerError as error:
            seconds = time.perf_counter() - start
            record = {"name": name, "sent": sent, "total": seconds, "error": str(error)}
            self._fire("CHAT", name, seconds, exception=error, context={"record": record})
            raise
        self._report(answer, name, sent)
        return answer.text

    @task
    def _visit(self) -> None:
        media, self._ahead = self._ahead.get(), self._prepare()
        if self.options.arrivals:
            self._in_flight.spawn(self._survive, media)
        else:
            self._survive(media)

    def _prepare(self) -> AsyncResult:
        """Draw the next visit's picture in a thread, so that no user's stream waits for it."""
        return in_thread(next(self._visits).prepare)

    def _survive(self, media: Media) -> None:
        with contextlib.suppress(AnswerError):
            self.visit(media)

    def on_start(self) -> None:
        gevent.sleep(self.wait_time())  # else all users of an open load would begin at once

    def on_stop(self) -> None:
        self._in_flight.join()

    def wait_time(self) -> float:
        """Return 0 under closed load, under open load the gaps of a Poisson process."""
        rate = self.options.arrivals
        return self._arrival.expovariate(rate) if rate else 0.0

    def _body(self, messages: Sequence[Message]) -> bytes:
        fields = {
            "model": self.options.model,
            "messages": messages,
            "max_tokens": self.options.output_tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **json.loads(self.options.body),
        }
        return json.dumps(fields).encode()

    def _send(self, body: bytes, start: float) -> Answer:
        headers = {"Content-Type": "application/json"}
        if self.options.api_key:
            headers["Authorization"] = f"Bearer {self.options.api_key}"
        reader = StreamReader()
        http = HTTPClient.from_url(self.host, connection_timeout=TIMEOUT, network_timeout=TIMEOUT)
        try:
            with http.request("POST", "/v1/chat/completions", body, headers) as response:
                if response.status_code != 200:
                    raise refusal(response.status_code, response.read())
                while line := response.readline(b"\n") or response.read():
                    reader.feed(line, time.perf_counter() - start)
        except (OSError, HTTPParseError, gevent.Timeout) as error:
            raise AnswerError(f"the connection broke: {type(error).__name__}") from error
        finally:
            http.close()
        return reader.finish(time.perf_counter() - start, self.options.output_tokens)

    def _report(self, answer: Answer, name: str, sent: float) -> None:
        record = {
            "name": name,
            "sent": sent,
            "ttft": answer.first_token,
            "gaps": answer.gaps,
            "total": answer.total,
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
        }
        length = len(answer.text.encode())
        self._fire("CHAT", name, answer.total, length, context={"record": record})
        self._fire("TTFT", name, answer.first_token)
        for gap in answer.gaps:
            self._fire("ITL", name, gap)
        self._fire("TOKENS/S", name, answer.tokens_per_second / 1000)
        if self._is_good(answer):
            self._fire("GOOD", name, answer.total)

    def _is_good(self, answer: Answer) -> bool:
        mean_gap = statistics.mean(answer.gaps or [0.0])
        limits = (answer.first_token, self.options.slo_ttft), (mean_gap, self.options.slo_itl)
        return all(1000 * seconds <= limit for seconds, limit in limits if limit)

    def _fire(self, kind: str, name: str, seconds: float, length: int = 0, **more: Any) -> None:
        fields = {"exception": None, "context": {}, **more}
        self.environment.events.request.fire(
            request_type=kind,
            name=name,
            response_time=1000 * seconds,
            response_length=length,
            **fields,
        )
