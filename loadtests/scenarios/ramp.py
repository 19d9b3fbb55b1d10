"""Where does the server saturate? Users double until requests per second stop rising.

    locust -f loadtests/scenarios/ramp.py --headless --host http://localhost:8000

Closed load. The log ends with the number of users beyond which doubling them gains less than 10 %.
"""

import argparse
import logging

import _options  # noqa: F401
from locust import LoadTestShape, events
from single_image import SingleImage

__all__ = ["Ramp", "SingleImage"]

LEAST_GAIN = 1.1
"""If doubling the users gains less than this factor, the server is saturated."""

MOST_USERS = 1024


@events.init_command_line_parser.add_listener
def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--step", type=float, default=20, help="ramp: seconds at every level")


class Ramp(LoadTestShape):  # type: ignore[misc]
    """1, 2, 4, ... users, each for `--step` seconds, until saturation. The first quarter of a step,
    in which the queue fills, is not counted."""

    def __init__(self) -> None:
        super().__init__()
        self._users, self._best = 1, 0.0
        self._began, self._counted, self._from = 0.0, -1, 0.0

    def tick(self) -> tuple[int, float] | None:
        """Return the number of users and their spawn rate; None ends the run. locust calls it every
        second."""
        now, step = self.get_run_time(), self.runner.environment.parsed_options.step
        answered = self.runner.stats.get(SingleImage.__name__, "CHAT").num_requests
        if self._counted < 0 and now - self._began >= step / 4:
            self._counted, self._from = answered, now
        if now - self._began < step:
            return self._users, self._users
        rate = (answered - self._counted) / (now - self._from)
        logging.info("ramp: %d users, %.2f requests/s", self._users, rate)
        if rate < LEAST_GAIN * self._best or self._users >= MOST_USERS:
            logging.info("ramp: saturated at %d users", self._users // 2)
            return None
        self._users, self._best = 2 * self._users, rate
        self._began, self._counted = now, -1
        return self._users, self._users
