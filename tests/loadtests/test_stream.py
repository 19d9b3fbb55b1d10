"""The load test's reader takes whole streams and nothing else."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from _stream import AnswerError, StreamReader, refusal


def chunk(text: str | None = None, finish: str | None = None, **more: Any) -> bytes:
    """An event as vLLM writes it."""
    delta = {} if text is None else {"content": text}
    body = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}
    return b"data: " + json.dumps(body).encode()


USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 84, "completion_tokens": 3}}'
DONE = b"data: [DONE]"
WHOLE = [chunk(""), chunk("a"), chunk("b"), chunk("c", "length"), USAGE, DONE]


def read(lines: list[bytes], tokens: int | None = 3) -> Any:
    reader = StreamReader()
    for second, line in enumerate(lines):
        reader.feed(line, float(second))
    return reader.finish(float(len(lines)), tokens)


def test_a_whole_answer_has_its_text_and_its_times() -> None:
    """The first chunk carries the role and no text: it is not the first token."""
    answer = read(WHOLE)
    assert answer.text == "abc"
    assert (answer.first_token, answer.gaps, answer.total) == (1, [1, 1], 6)
    assert (answer.prompt_tokens, answer.completion_tokens) == (84, 3)
    assert answer.tokens_per_second == 0.5


def test_blank_lines_comments_and_crlf_are_part_of_the_protocol() -> None:
    lines = [b"\n", b": ping\n", *[line + b"\r\n" for line in WHOLE]]
    assert read(lines).text == "abc"


BROKEN = {
    "the stream ended without [DONE]": WHOLE[:-1],
    "the answer is empty": [chunk(""), chunk("", "length"), USAGE, DONE],
    "the answer has no finish_reason": [chunk("a"), USAGE, DONE],
    "the stream reports no usage": [chunk("a", "stop"), DONE],
    "3 tokens were asked for, not 2": [
        chunk("ab", "length"),
        USAGE.replace(b": 3", b": 2"),
        DONE,
    ],
    "an event is not JSON": [b"data: {oops", DONE],
    "an event is not a chunk of a chat completion": [b'data: {"choices": [{"text": "a"}]}', DONE],
    "a line of the stream is not data": [b"<html>", DONE],
    "the stream goes on after [DONE]": [*WHOLE, chunk("d")],
    "an error in the stream: out of memory": [
        chunk("a"),
        b'data: {"error": {"message": "out of memory"}}',
    ],
}


@pytest.mark.parametrize("reason", BROKEN)
def test_a_broken_stream_is_refused_with_the_reason(reason) -> None:
    with pytest.raises(AnswerError) as caught:
        read(BROKEN[reason])
    assert str(caught.value) == reason


def test_a_refusal_carries_the_servers_sentence() -> None:
    body = b'{"error": {"message": "prune_rate is 2, allowed is [0, 1)", "code": 400}}'
    assert str(refusal(400, body)) == "HTTP 400: prune_rate is 2, allowed is [0, 1)"
    for other in (b"", b"<html>", b"[]", b'{"error": null}'):
        assert str(refusal(502, other)) == "HTTP 502"


def test_reading_streams_does_not_bring_gevent_in() -> None:
    assert "locust" not in sys.modules
    assert "gevent" not in sys.modules
