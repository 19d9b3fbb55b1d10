"""Servers shared by the tests of this folder: starting one takes half a minute or more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from vllm_server import Server

pytestmark = pytest.mark.server


@pytest.fixture(scope="session")
def log_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the servers of this session write what they print."""
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="session")
def pruned(log_folder: Path) -> Iterator[Server]:
    """vtprune with its defaults; requests may carry processor settings."""
    arguments = ["--plugin", "vtprune", "--trust-request-mm-kwargs", "--enable-mm-embeds"]
    with Server(log_folder / "pruned.log", *arguments) as server:
        yield server


@pytest.fixture(scope="session")
def answering(log_folder: Path) -> Iterator[Server]:
    """`make serve`: the trained demo model, with vtprune's defaults, from the installed command."""
    model = str(Path(__file__).parents[2] / "demo" / "llava")
    with Server(
        log_folder / "answering.log", "--plugin", "vtprune", model=model, fork=False
    ) as server:
        yield server


@pytest.fixture(scope="session")
def stock(log_folder: Path) -> Iterator[Server]:
    """vLLM that does not load vtprune at all."""
    with Server(log_folder / "stock.log", VLLM_PLUGINS="none") as server:
        yield server


def _starting(log_folder: Path) -> Iterator[Callable[..., Server]]:
    """A function that starts a server.

    Compiling takes two fifths of a start; it is left out unless answers are compared with those of
    the servers above, which compile as a user's do.
    """
    with ExitStack() as stack:

        def enter(name: str, *arguments: str, compiled: bool = False, **options: str) -> Server:
            eager = [] if compiled else ["--enforce-eager"]
            log = log_folder / f"{name}.log"
            return stack.enter_context(Server(log, *arguments, *eager, **options))

        yield enter


start = pytest.fixture(_starting, name="start")
"""Servers that end with the test: several at once take the memory of a small machine."""

start_shared = pytest.fixture(_starting, name="start_shared", scope="module")
"""Servers that end with the file."""
