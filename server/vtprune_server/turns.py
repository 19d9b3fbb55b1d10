"""Turns: so many requests at work at once, so many waiting, and none for a client that has gone.

`explain` and `compare` let one small body cost what many chat completions do. They share what is
left of the server with those, not the other way round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import HTTPException, Request

__all__ = ["Turns"]

Result = TypeVar("Result")

_LOOK = 0.2
"""Seconds between two looks at whether the client is still there."""


class Turns:
    """A queue of one kind of work in this process."""

    def __init__(self, name: str, at_once: int, waiting: int) -> None:
        """Args: what clients know the work by, and how much of it may run and wait."""
        self._name, self._places = name, at_once + waiting
        self._running = asyncio.Semaphore(at_once)
        self._inside = 0

    async def take(self, request: Request, work: Coroutine[Any, Any, Result]) -> Result:
        """Do a request's work when its turn comes; stop when its client hangs up.

        Raises:
            HTTPException: 429, too many wait; 408, nobody waits for this any longer.
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
            work.close()  # nothing, unless its turn never came
