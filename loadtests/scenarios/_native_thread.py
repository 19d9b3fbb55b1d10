"""One native thread beside gevent's loop, for work that would block every user's stream.

gevent's own pool is not used: when more users asked than it has threads, one of 32 waited for ever
(gevent 26.9.0, seen once). Here the queue is the C implementation, which gevent does not patch, and
results come back through the loop's interface for other threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import Any

from gevent import get_hub
from gevent.event import AsyncResult
from gevent.monkey import get_original

__all__ = ["in_thread"]


def in_thread(function: Callable[[], Any]) -> AsyncResult:
    """Call a function in the thread, after earlier ones; `get` of the result waits for it."""
    result = AsyncResult()
    _tasks(os.getpid()).put((function, result, get_hub().loop))
    return result


@cache
def _tasks(process: int) -> Any:
    """Return the queue of this process's thread; a forked process gets a new one."""
    tasks = get_original("queue", "SimpleQueue")()
    get_original("_thread", "start_new_thread")(_work, (tasks,))
    return tasks


def _work(tasks: Any) -> None:
    while True:
        function, result, loop = tasks.get()
        try:
            value = function()
        except Exception as error:
            loop.run_callback_threadsafe(result.set_exception, error)
        else:
            loop.run_callback_threadsafe(result.set, value)
