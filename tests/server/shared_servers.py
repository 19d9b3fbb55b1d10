"""Servers that several test files ask for, started once in each of pytest's processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from vllm_server import Server

SERVERS = pytest.StashKey["SharedServers"]()
"""Where pytest's configuration has those of this process, once there are any."""

_MOST = 4
"""Servers that run at once, some 2 GB each. A file that uses more at a time has more."""

_Key = tuple[tuple[str, ...], tuple[tuple[str, Any], ...]]
"""Arguments and options."""


class SharedServers:
    """Running servers by what they were started with, the one used last at the end."""

    def __init__(self, log_folder: Path) -> None:
        self._log_folder = log_folder
        self._running: dict[_Key, Server] = {}
        self._users: Counter[_Key] = Counter()
        self._uses: Counter[_Key] = Counter()

    @contextmanager
    def use(self, name: str, *arguments: str, **options: Any) -> Iterator[Server]:
        """Give a server with empty caches, started unless one of equal arguments and options runs.

        Its counters and its log tell of earlier users too. It goes on for the next one.
        """
        key = (arguments, tuple(sorted(options.items())))
        if server := self._running.pop(key, None):
            server.forget()
        else:
            self._make_room()
            server = Server(self._log_folder / f"{name}.log", *arguments, **options)
            server.start()
        self._running[key] = server
        self._users[key] += 1
        self._uses[key] += 1
        try:
            yield server
        finally:
            self._users[key] -= 1

    def _make_room(self) -> None:
        """Stop what nobody uses so that one more may start: first what compiled nothing and so is
        soon started again, of these what was used least."""
        idle = [key for key in self._running if not self._users[key]]
        idle.sort(key=lambda key: ("--enforce-eager" not in key[0], self._uses[key]))
        for key in idle[: max(0, len(self._running) + 1 - _MOST)]:
            self._running.pop(key).stop()

    def stop(self) -> None:
        """Stop all."""
        while self._running:
            self._running.popitem()[1].stop()
