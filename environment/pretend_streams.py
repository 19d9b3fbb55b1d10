"""Streams and events of the GPU that is not there.

Operators run at once here, in the order in which they are launched, which on a GPU holds within a
stream alone. So every launch is counted on its stream, and every stream and the host know how many
launches of each other stream are over before what they do next: what events, waits and
synchronisations told them (vector clocks). `pretend_memory` holds each tensor against that.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["HOST", "MAIN", "Event", "Stream", "catch_up", "current", "on_stream", "set_current"]

_numbers = itertools.count()
_streams: weakref.WeakSet[Stream] = weakref.WeakSet()


class Order:
    """What of each stream is known to be over, by the stream's number."""

    def __init__(self) -> None:
        self.over: dict[int, int] = {}

    def follows(self, moment: dict[int, int]) -> None:
        """Go on only after a moment."""
        for stream, launches in moment.items():
            self.over[stream] = max(launches, self.over.get(stream, 0))

    def has_seen(self, stream: int, launch: int) -> bool:
        """Return whether a launch is over before what comes next here."""
        return self.over.get(stream, 0) >= launch


HOST = Order()
"""What the host has waited for."""


class Stream(Order):
    """A `torch.cuda.Stream`."""

    def __init__(self, device: Any = None, priority: int = 0, **_: Any) -> None:
        super().__init__()
        self.number = next(_numbers)
        _streams.add(self)
        self.cuda_stream = self.number

    def launch(self) -> int:
        """Count a launch and return which it is. The host launches what it has seen the end of."""
        self.follows(HOST.over)
        self.over[self.number] = self.over.get(self.number, 0) + 1
        return self.over[self.number]

    def moment(self) -> dict[int, int]:
        """Return what is over once all that is launched here by now is."""
        return {**self.over}

    def wait_stream(self, stream: Stream) -> None:
        """Go on after what another stream has by now."""
        self.follows(stream.moment())

    def wait_event(self, event: Event) -> None:
        """Go on after an event."""
        event.wait(self)

    def record_event(self, event: Event | None = None) -> Event:
        """Return an event that marks this moment."""
        event = event or Event()
        event.record(self)
        return event

    def synchronize(self) -> None:
        """Have the host wait for all that is launched here by now."""
        HOST.follows(self.moment())

    def query(self) -> bool:
        """Return whether the host knows that all is over."""
        return all(HOST.has_seen(*each) for each in self.over.items())


class Event:
    """A `torch.cuda.Event`. A GPU lags behind: it has passed when the host asks a second time."""

    def __init__(self, enable_timing: bool = False, **_: Any) -> None:
        self._is_timed = enable_timing
        self._moment: dict[int, int] = {}
        self._was_asked = False

    def record(self, stream: Stream | None = None) -> None:
        """Mark the moment."""
        stream = stream or current()
        stream.launch()
        self._moment, self._was_asked = stream.moment(), False

    def wait(self, stream: Stream | None = None) -> None:
        """Have a stream go on after the event."""
        (stream or current()).follows(self._moment)

    def synchronize(self) -> None:
        """Have the host wait for the event."""
        HOST.follows(self._moment)

    def query(self) -> bool:
        """Return whether the device has passed it."""
        if not self._is_over and self._was_asked:
            self.synchronize()
        self._was_asked = True
        return self._is_over

    def elapsed_time(self, end: Event) -> float:
        """Return milliseconds between two moments.

        Raises:
            RuntimeError: one of them has not passed, or they are not timed.
        """
        if not (self._is_timed and end._is_timed and self._is_over and end._is_over):
            raise RuntimeError("device not ready: an event has not been passed, or is not timed")
        return 1.0

    @property
    def _is_over(self) -> bool:
        return all(HOST.has_seen(*each) for each in self._moment.items())


class _Current(threading.local):
    """Each thread begins on the default stream, whatever others are on."""

    def __init__(self) -> None:
        self.stream = _DEFAULT


_DEFAULT = Stream()
MAIN = Stream()
"""vLLM's workers make one that is not the default stream."""

_current = _Current()


def catch_up() -> None:
    """Have the host wait for all streams."""
    for stream in _streams:
        stream.synchronize()


def current(device: Any = None) -> Stream:
    """Return the stream on which this thread launches."""
    return _current.stream


def set_current(stream: Stream) -> None:
    """Launch on a stream from now on."""
    _current.stream = stream


@contextmanager
def on_stream(stream: Stream | None) -> Iterator[None]:
    """Launch on a stream within the block; None changes nothing."""
    before = _current.stream
    _current.stream = stream or before
    try:
        yield
    finally:
        _current.stream = before
