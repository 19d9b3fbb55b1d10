"""How the suite is shared out: all tests that ask a server are one group, so that one of `make
test`'s two processes has the servers, started once, and the other has everything else meanwhile."""

from __future__ import annotations

import pytest


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark it now: pytest-xdist reads the groups as soon as all tests are collected."""
    if item.get_closest_marker("server"):
        item.add_marker(pytest.mark.xdist_group("server"))
