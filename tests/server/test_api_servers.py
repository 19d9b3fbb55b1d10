"""Several API server processes before one engine: each prunes, bounds and reports as one would."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest
from media import photo_question
from vllm_server import Server

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def connections(start_shared: Callable[..., Server]) -> Iterator[list[Server]]:
    """The same server over eight connections, which the kernel deals out to the processes: that all
    fall to one has a chance of 1 in 128."""
    server = start_shared("two-api-servers", "--plugin", "vtprune", "--api-server-count", "2")
    views = []
    for _ in range(8):
        view = object.__new__(Server)
        view.__dict__.update(server.__dict__)
        view.client = httpx.Client(base_url=server.url, timeout=300)
        views.append(view)
    yield views
    for view in views:
        view.client.close()


def test_every_process_prunes_as_the_request_says(connections: list[Server]) -> None:
    for count, server in enumerate(connections, start=20):
        usage = server.ask(photo_question(0), vtprune={"tokens": count})["usage"]
        assert usage["visual_tokens"] == {"original": 576, "kept": count}
        assert server.ask(photo_question(0))["usage"]["visual_tokens"]["kept"] == 64
        assert server.post(photo_question(0), vtprune={"tokens": 0}).status_code == 400


def test_every_process_has_the_routes(connections: list[Server]) -> None:
    body = {"messages": [{"role": "user", "content": photo_question(0)}], "overlay": False}
    answers = [server.client.post("/vtprune/explain", json=body) for server in connections]
    assert [answer.status_code for answer in answers] == [200] * len(answers)
    assert all(answer.json() == answers[0].json() for answer in answers)
