"""Which stream has read and written each tensor of the GPU that is not there, and when: a use that
is not ordered behind another is a fault, and so is memory that is freed while it is in use.

Memory of the host is read late: a copy from pinned memory is over once the host has waited for it,
and what was written there in the meantime may be what was copied.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from pretend_streams import HOST, Stream
from pretend_tensor import OnCard

__all__ = ["Copies", "Use", "is_dense", "is_pinned", "pinned", "use_of"]


class _Launch(NamedTuple):
    stream: Stream
    number: int
    what: str

    def is_before(self, stream: Stream) -> bool:
        """Return whether it is over before what comes next on a stream."""
        seen = stream.has_seen(self.stream.number, self.number)
        return self.stream is stream or seen or self.is_over

    @property
    def is_over(self) -> bool:
        """Whether the host knows that it is over."""
        return HOST.has_seen(self.stream.number, self.number)


class Use:
    """The uses of one storage. It goes with the storage."""

    def __init__(self) -> None:
        self._home: Stream | None = None
        self._written: _Launch | None = None
        self._read: dict[int, _Launch] = {}
        self._promised: set[int] = set()

    def made(self, stream: Stream) -> None:
        """Note on which stream it was allocated, and so can be allocated again at once."""
        self._home = stream

    def reads(self, stream: Stream, number: int, what: str) -> None:
        """Note that a launch reads it."""
        self._after(self._written, stream, f"{what} reads")
        self._read[stream.number] = _Launch(stream, number, what)

    def writes(self, stream: Stream, number: int, what: str) -> None:
        """Note that a launch writes it."""
        for launch in (self._written, *self._read.values()):
            self._after(launch, stream, f"{what} writes")
        self._read = {}
        self._written = _Launch(stream, number, what)

    def _after(self, launch: _Launch | None, stream: Stream, what: str) -> None:
        if launch is not None and not launch.is_before(stream):
            _note(f"{what} what {launch.what} uses on another stream, without waiting for it")

    def promised(self, stream: Stream) -> None:
        """Note that it is not allocated again before a stream is done (`record_stream`)."""
        self._promised.add(stream.number)

    def __del__(self) -> None:
        if (home := self._home) is None:
            return
        uses = (*self._read.values(), *((self._written,) if self._written else ()))
        for launch in uses:
            if launch.stream.number not in self._promised and not launch.is_before(home):
                _note(f"memory is freed while {launch.what} uses it on another stream")


def _note(fault: str) -> None:
    if OnCard.active is not None:
        OnCard.active.note(fault)


def use_of(tensor: torch.Tensor) -> Use:
    """Return the uses of the memory of a tensor of the host, the numbers of one on the card."""
    storage = tensor.untyped_storage()
    found: Use | None = getattr(storage, "pretend_use", None)
    if found is None:
        storage.pretend_use = found = Use()
    return found


def pinned(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor of the host whose memory is pinned now."""
    tensor.untyped_storage().pretend_pinned = True
    return tensor


def is_pinned(tensor: torch.Tensor) -> bool:
    """Return whether a tensor's memory is pinned."""
    return getattr(tensor.untyped_storage(), "pretend_pinned", False)


def is_dense(tensor: torch.Tensor) -> bool:
    """Return whether a tensor's numbers have no gaps between them, in whatever order."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride != expected:
            return False
        expected *= size
    return True


class _Copy(NamedTuple):
    launch: _Launch
    source: torch.Tensor
    """Alive until the copy is over, as torch keeps pinned memory."""

    copied: torch.Tensor


class Copies:
    """The copies from pinned memory that the host has not waited for."""

    def __init__(self) -> None:
        self._pending: list[_Copy] = []

    def begin(self, source: torch.Tensor, stream: Stream, number: int, what: str) -> None:
        """Note a copy that is not over."""
        self._pending.append(_Copy(_Launch(stream, number, what), source, source.clone()))

    def end(self) -> None:
        """Look at the copies that the host has waited for."""
        self._look(each for each in self._pending if each.launch.is_over)
        self._pending = [each for each in self._pending if not each.launch.is_over]

    def end_all(self) -> None:
        """Look at all of them."""
        self._look(self._pending)
        self._pending = []

    def _look(self, over: Iterable[_Copy]) -> None:
        for each in over:
            if not torch.equal(_bytes(each.source), _bytes(each.copied)):
                _note(f"pinned memory was written before {each.launch.what} was over")


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().reshape(-1).contiguous().view(torch.uint8)
