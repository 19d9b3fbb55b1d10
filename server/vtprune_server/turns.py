"""Limit how many requests of a kind run and wait, and cancel those whose client has disconnected.

One small body to `explain` or `compare` may cost as much as many chat completions. These requests
must not take the server away from chat completions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import HTTPException, Request

__all__ = ["Turns"]

Result = TypeVar("Result")

_LOOK = 0.2
"""Seconds between two checks whether the client is still connected."""


class Turns:
    """A queue of one kind of work in this process."""

    def __init__(self, name: str, at_once: int, waiting: int) -> None:
        """Create an empty queue.

        Args:
            name: name of the work in errors to clients.
            at_once: how many requests may run at once.
            waiting: how many may wait.
        """
        self._name, self._places = name, at_once + waiting
        self._running = asyncio.Semaphore(at_once)
        self._inside = 0

    async def take(self, request: Request, work: Coroutine[Any, Any, Result]) -> Result:
        """Do a request's work when its turn comes; cancel it if its client disconnects.

        Raises:
            HTTPException: 429, if too many requests wait; 408, if the client has disconnected.
        """
        if self._inside >= self._places:
            work.close()
            raise HTTPException(
                429,
                f"{self._inside} requests to {self._name} are at work or waiting; "
                f"allowed: {self._places}",
            )
        self._inside += 1
        task = asyncio.ensure_future(self._in_turn(work))
        try:
            while not (await asyncio.wait({task}, timeout=_LOOK))[0]:
                if await request.is_disconnected():
                    raise HTTPException(408, "the client has hung up")
            return task.result()
        finally:
            self._inside -= 1
            task.cancel()

    async def _in_turn(self, work: Coroutine[Any, Any, Result]) -> Result:
        try:
            async with self._running:
                return await work
        finally:
            work.close()  # has an effect only if its turn never came
