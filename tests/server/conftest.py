"""Servers shared by the tests of this folder: starting one takes half a minute or more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from shared_servers import SERVERS, SharedServers
from vllm_server import Server

pytestmark = pytest.mark.server


@pytest.fixture(scope="session")
def log_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the servers of this session write what they print."""
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="session")
def servers(log_folder: Path, pytestconfig: pytest.Config) -> Iterator[SharedServers]:
    """Servers that go on from file to file."""
    shared = pytestconfig.stash.setdefault(SERVERS, SharedServers(log_folder))
    yield shared
    shared.stop()


@pytest.fixture(scope="module")
def pruned(servers: SharedServers) -> Iterator[Server]:
    """vtprune with its defaults; requests may carry processor settings."""
    arguments = ["--plugin", "vtprune", "--trust-request-mm-kwargs", "--enable-mm-embeds"]
    with servers.use("pruned", *arguments) as server:
        yield server


@pytest.fixture(scope="module")
def answering(servers: SharedServers) -> Iterator[Server]:
    """`make serve`: the trained demo model, with vtprune's defaults."""
    model = str(Path(__file__).parents[2] / "demo" / "llava")
    with servers.use("answering", "--plugin", "vtprune", model=model) as server:
        yield server


@pytest.fixture(scope="module")
def stock(servers: SharedServers) -> Iterator[Server]:
    """vLLM that does not load vtprune at all."""
    with servers.use("stock", VLLM_PLUGINS="none") as server:
        yield server


def _eager(compiled: bool) -> list[str]:
    """Compiling takes most of a start; it is left out unless answers are compared with those of
    the servers above, which compile as a user's do."""
    return [] if compiled else ["--enforce-eager"]


@pytest.fixture
def start(log_folder: Path) -> Iterator[Callable[..., Server]]:
    """A function that starts a server for this test alone."""
    with ExitStack() as stack:

        def enter(name: str, *arguments: str, compiled: bool = False, **options: str) -> Server:
            log = log_folder / f"{name}.log"
            return stack.enter_context(Server(log, *arguments, *_eager(compiled), **options))

        yield enter


@pytest.fixture(scope="module")
def start_shared(servers: SharedServers) -> Iterator[Callable[..., Server]]:
    """A function that gives a server to this file, and to others that ask for an equal one."""
    with ExitStack() as stack:

        def enter(name: str, *arguments: str, compiled: bool = False, **options: str) -> Server:
            use = servers.use(name, *arguments, *_eager(compiled), **options)
            return stack.enter_context(use)

        yield enter
