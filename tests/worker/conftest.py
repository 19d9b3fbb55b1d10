"""Models in pytest's own processes have the machine's memory to themselves."""

from __future__ import annotations

import pytest
from shared_servers import SERVERS


@pytest.fixture(scope="session", autouse=True)
def no_server_beside(pytestconfig: pytest.Config) -> None:
    """Stop the servers of tests/server, whose files come first: 6 GB in each of two processes."""
    if shared := pytestconfig.stash.get(SERVERS, None):
        shared.stop()
