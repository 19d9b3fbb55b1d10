"""Whoever gives work to the thread gets its result, however many do; and nobody stands still."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCENARIOS = Path(__file__).parents[2] / "loadtests" / "scenarios"

# gevent patches the whole process, so it gets one of its own.
SCRIPT = """
from gevent import monkey

monkey.patch_all()
import json
import time
from operator import truediv

import gevent
from _native_thread import in_thread
from gevent.monkey import get_original

sleep = get_original("time", "sleep")


def user(number):
    calls = [in_thread(lambda i=i: number * i) for i in range(20)]
    return [call.get(timeout=60) for call in calls]


def ticks():
    in_thread(lambda: sleep(0.5))
    until, seen = time.monotonic() + 0.4, 0
    while time.monotonic() < until:
        gevent.sleep(0.01)
        seen += 1
    return seen


users = [gevent.spawn(user, number) for number in range(64)]
gevent.joinall(users, timeout=60)
failed = in_thread(lambda: truediv(1, 0))
try:
    failed.get(timeout=60)
    said = "nothing"
except ZeroDivisionError as error:
    said = str(error)
print(json.dumps([[user.value for user in users], said, ticks()]))
"""


def test_every_result_arrives_and_the_loop_goes_on() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=SCENARIOS, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    results, said, ticks = json.loads(done.stdout)
    assert results == [[number * i for i in range(20)] for number in range(64)]
    assert said == "division by zero"
    assert ticks > 5, "greenlets run while the thread works"
