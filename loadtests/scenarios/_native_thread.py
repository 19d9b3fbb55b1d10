"""One native thread beside gevent's loop, for work that would hold up every user's stream.

gevent's own pool is left aside: once more users asked than it has threads, one of 32 waited for an
answer for ever (gevent 26.9.0, seen once). Here the queue is C's, which gevent does not replace,
and answers come back by the loop's own way for other threads.
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
    """Call a function in the thread, after those given before; `get` waits for the result."""
    result = AsyncResult()
    _tasks(os.getpid()).put((function, result, get_hub().loop))
    return result


@cache
def _tasks(process: int) -> Any:
    """The queue of this process's thread; a process forked off has none yet."""
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
