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
    """`make serve`: the trained demo model, with vtprune's defaults."""
    model = str(Path(__file__).parents[2] / "models" / "demo")
    with Server(log_folder / "answering.log", "--plugin", "vtprune", model=model) as server:
        yield server


@pytest.fixture(scope="session")
def stock(log_folder: Path) -> Iterator[Server]:
    """vLLM that does not load vtprune at all."""
    with Server(log_folder / "stock.log", VLLM_PLUGINS="none") as server:
        yield server


@pytest.fixture(scope="module")
def start(log_folder: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Server]]:
    """Start a server that ends with the module."""
    with ExitStack() as stack:

        def enter(name: str, *arguments: str, **options: str) -> Server:
            return stack.enter_context(Server(log_folder / f"{name}.log", *arguments, **options))

        yield enter
