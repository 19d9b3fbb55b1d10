"""A server whose second engine runs on another node: here, by a command line of its own."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from media import photo_question
from nightly import NIGHTLY
from vllm_process import VllmProcess
from vllm_server import Server

pytestmark = [pytest.mark.server, NIGHTLY]

LLAVA = str(Path(__file__).parents[2] / "demo" / "llava")
PLUGIN = ["--plugin", "vtprune"]
QUESTIONS = [photo_question(index) for index in range(8)]


class Headless(VllmProcess):
    """Engines without an API server, which answer no question about their health."""

    def _wait(self, deadline: float) -> None:
        """Return; the head waits for them."""


@pytest.fixture
def flags() -> list[str]:
    """One engine on each of two nodes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    engines = ["--data-parallel-size", "2", "--data-parallel-size-local", "1"]
    engines += ["--data-parallel-address", "127.0.0.1", "--data-parallel-rpc-port", port]
    return [*engines, "--enforce-eager", "--gpu-memory-utilization", "0.2", "--dtype", "float32"]


@pytest.fixture
def second(flags: list[str], tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[None]:
    """The other node, with the flags that the test names."""
    start = ["--headless", "--data-parallel-start-rank", "1"]
    with Headless(tmp_path / "second.log", LLAVA, *flags, *start, *request.param):
        yield


@pytest.mark.usefixtures("second")
@pytest.mark.parametrize("second", [PLUGIN], indirect=True)
def test_both_engines_prune(flags: list[str], tmp_path: Path) -> None:
    with Server(tmp_path / "head.log", *flags, *PLUGIN, model=LLAVA, fork=False) as head:
        with ThreadPoolExecutor(len(QUESTIONS)) as pool:  # which engines share
            answers = list(pool.map(head.ask, QUESTIONS))
        assert {each["usage"]["visual_tokens"]["kept"] for each in answers} == {28}
        requests = head.metrics("vllm:request_success_total")
        assert all(
            any(f'engine="{engine}"' in name and count for name, count in requests.items())
            for engine in (0, 1)
        )


@pytest.mark.usefixtures("second")
@pytest.mark.parametrize("second", [[]], indirect=True)
def test_a_node_without_the_plugin_stops_the_server_at_its_start(
    flags: list[str], tmp_path: Path
) -> None:
    head = Server(tmp_path / "head.log", *flags, *PLUGIN, model=LLAVA)
    with pytest.raises(RuntimeError, match="vLLM is not up"):
        head.start()
    assert "vtprune: an engine of this server does not prune (" in head.log
    assert "allowed: --plugin vtprune in the command of every node, --headless ones too" in head.log
