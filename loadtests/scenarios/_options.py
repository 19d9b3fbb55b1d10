"""Flags of the scenarios, in addition to locust's own; the web UI shows them, too."""

from __future__ import annotations

import argparse

from locust import events

__all__: list[str] = []


@events.init_command_line_parser.add_listener
def _add(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(stop_timeout=120)  # locust's 0 drops the requests in flight at the end
    add = parser.add_argument
    add("--model", default="demo", help="model name in the requests")
    add("--body", default="{}", help="more keys of each request, as JSON")
    add("--seed", type=int, default=0, help="equal seeds ask equal questions about equal pictures")
    add(
        "--pictures",
        choices=["photos", "synthetic"],
        default="photos",
        help="views of the bundled photographs, or drawn shapes",
    )
    add("--output-tokens", type=int, default=16, help="exact number of tokens of every answer")
    add(
        "--arrivals",
        type=float,
        default=0,
        help="open load: visits per second that each user starts without waiting for answers; "
        "0 is closed load, where a user waits for its answer",
    )
    add("--slo-ttft", type=float, default=1000, help="objective for the first token, in ms")
    add("--slo-itl", type=float, default=0, help="objective for the mean gap, in ms; 0 is none")
    add("--api-key", default="", is_secret=True, help="sent as a bearer token")
    add("--answers", default="", help="write one JSON line per request into this file")
