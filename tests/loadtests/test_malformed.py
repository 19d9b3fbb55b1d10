"""A server that answers badly over real HTTP is reported as failed, with the reason, and never as a
fast one. The server is made by hand, because vLLM does not send such bytes on request."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from locust_run import run

pytestmark = pytest.mark.slow

EVENTS = (
    b'data: {"choices": [{"delta": {"content": "a"}, "finish_reason": "length"}]}\n\n'
    b'data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 1}}\n\n'
)
DONE = b"data: [DONE]\n\n"

ANSWERS = {
    "whole": (200, EVENTS + DONE, None),
    "no-done": (200, EVENTS, "the stream ended without [DONE]"),
    "empty": (200, EVENTS.replace(b'"a"', b'""') + DONE, "the answer is empty"),
    "not-json": (200, b"data: {oops\n\n" + DONE, "an event is not JSON"),
    "no-stream": (200, b'{"choices": []}', "a line of the stream is not data"),
    "nothing": (200, b"", "the stream ended without [DONE]"),
    "refused": (400, b'{"error": {"message": "no"}}', "HTTP 400: no"),
    "overloaded": (503, b"", "HTTP 503"),
    "cut": (200, None, "the connection broke: HTTPParseError"),
}
"""Status, body and the reason to be reported; without a body the connection breaks inside one."""


class Handler(BaseHTTPRequestHandler):
    """Gives the same answer to everyone."""

    protocol_version = "HTTP/1.1"
    status: int
    body: bytes | None

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.status)
        promised = 100 if self.body is None else len(self.body)
        self.send_header("Content-Length", str(promised))
        self.end_headers()
        self.wfile.write(EVENTS[:40] if self.body is None else self.body)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def bad_server(request) -> Iterator[str]:
    status, body, _ = ANSWERS[request.param]
    handler = type("Bad", (Handler,), {"status": status, "body": body})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "bad_server, kind", [(kind, kind) for kind in ANSWERS], indirect=["bad_server"]
)
def test_the_reason_is_reported(bad_server, kind, tmp_path) -> None:
    flags = ["-u", "1", "-t", "1s", "--output-tokens", "1", "--pictures", "synthetic"]
    done = run(tmp_path, "single_image", bad_server, *flags)
    reason = ANSWERS[kind][2]
    row = done.stats["CHAT", "SingleImage"]
    assert row["num_requests"] == len(done.answers) > 0
    assert {answer.get("error") for answer in done.answers} == {reason}
    assert row["num_failures"] == (row["num_requests"] if reason else 0)
    assert done.exit_code == (1 if reason else 0)
    assert (("TTFT", "SingleImage") in done.stats) == (reason is None)
