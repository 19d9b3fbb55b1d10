"""What holds for all tests: their share of the cores, and what their marks mean."""

from __future__ import annotations

import os

import pytest

_STARTING = {"answering", "pruned", "start", "start_shared", "stock"}
"""Fixtures of `tests/server` that start a server."""

_REAL_SIZE = 500
"""Tokens: LLaVA has 576, LLaVA-NeXT up to 2,880. Literal formulas and Triton's interpreter take
seconds there."""

_SHORT = {"layout", "settings"}
"""Folders whose files take seconds."""


def pytest_configure() -> None:
    """Give torch the cores that fall to one of pytest's processes.

    With a thread for every core in each, they wait for one another at every small operation: the
    contract of the methods took eight times the processor time.
    """
    if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
        import torch

        torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(workers)))


@pytest.hookimpl(tryfirst=True)  # before marks choose among tests
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what computes at the size of a real image, and put short files at the end, so that none
    of pytest's processes waits there while another is in the middle of a long one."""
    for item in items:
        if _is_of_real_size(item):
            item.add_marker("slow")
    items.sort(key=lambda item: item.path.parent.name in _SHORT)


@pytest.hookimpl(tryfirst=True)  # before its fixtures start anything
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse a test that starts a server and is not marked so: `make test-fast` would run it. Skip
    what is for the night."""
    if item.get_closest_marker("nightly") and not os.environ.get("VTPRUNE_NIGHTLY"):
        pytest.skip("VTPRUNE_NIGHTLY is not set")
    if _starts_a_server(item) and not item.get_closest_marker("server"):
        pytest.fail(f"{item.nodeid} starts a server: mark it `server`", pytrace=False)


def _is_of_real_size(item: pytest.Item) -> bool:
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    sizes = (parameters.get(name) for name in ("size", "tokens"))
    return any(isinstance(size, int) and size >= _REAL_SIZE for size in sizes)


def _starts_a_server(item: pytest.Item) -> bool:
    """By a fixture, or by a command that `forked.run` runs."""
    fixtures = set(getattr(item, "fixturenames", ()))
    imported = vars(item.module).values() if hasattr(item, "module") else ()
    forks = any(getattr(value, "__module__", None) == "forked" for value in imported)
    return forks or bool(fixtures & _STARTING)
