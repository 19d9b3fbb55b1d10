"""`--answers FILE`: write every request as one JSON line, without the rounding of locust's
statistics.

A worker of a distributed run appends its number to the file's name. Times are in seconds, `sent` is
Unix time; a failed request has `error` instead of its measurements.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any, TextIO

from locust import events
from locust.env import Environment
from locust.runners import WorkerRunner

__all__: list[str] = []


@events.init.add_listener
def _write(environment: Environment, **_: Any) -> None:
    def listen(request_type: str, context: dict[str, Any], **_: Any) -> None:
        path = environment.parsed_options.answers
        if path and request_type == "CHAT":
            if isinstance(environment.runner, WorkerRunner):
                path = f"{path}.{environment.runner.worker_index}"
            _open(path).write(json.dumps(context["record"]) + "\n")

    environment.events.request.add_listener(listen)


@cache
def _open(path: str) -> TextIO:
    return open(path, "a", buffering=1)  # closed by the end of the process
