"""How the suite is shared out: all tests that ask a server are one group, so that one of `make
test`'s two processes has the servers, started once, and the other has everything else meanwhile."""

from __future__ import annotations

import pytest


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("server"):
            item.add_marker(pytest.mark.xdist_group("server"))
