"""A GPU that is not there, whose tensors hold real numbers: what runs on it gives what a CPU gives,
and it objects to what a GPU would.

Operators run on the CPU (`pretend_tensor`), the references of `vtprune_kernels` in place of
kernels. An operator that mixes its tensors with those of the host raises, as in CUDA. What makes
the host wait goes through, and is noted (`pretend_waits`), and so is what relies on an order that
streams and copies do not have (`pretend_memory`). Memory that nobody has written holds NaN. Not
shown are kernels and how much memory there is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Self

import torch
from pretend_memory import Copies, is_dense, is_pinned, use_of
from pretend_operators import COMPOSITE, Step, is_made_of_others, made_by, spoil, written_by
from pretend_streams import catch_up, current
from pretend_tensor import OnCard, host, on_card, tensors_in
from pretend_waits import refuse_mixes, wait_of
from torch.utils._pytree import tree_map

__all__ = ["Card"]


class Card:
    """What runs operators while its context is entered, and what it notes."""

    def __init__(self, allowed: Collection[str] = ()) -> None:
        """Note no wait yet.

        Args:
            allowed: functions of vLLM, as `module:qualified name`, in which the host may wait.
        """
        self.tape: list[Step] | None = None
        """Where a graph records what runs; None while none is captured."""
        self.waits: list[str] = []
        """What made the host wait, and where."""
        self.faults: list[str] = []
        """What relies on an order that is not there, and where."""
        self.pools: dict[Any, Any] = {}
        """The graphs that share memory, by what they were given."""
        self._allowed = frozenset(allowed)
        self._used: set[str] = set()
        self._copies = Copies()

    def __enter__(self) -> Self:
        self._before, OnCard.active = OnCard.active, self
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._copies.end_all()
        OnCard.active = self._before
        if self.faults and error is None:
            raise RuntimeError("; ".join(dict.fromkeys(self.faults)))

    def run(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run an operator of torch.

        Raises:
            RuntimeError: it mixes tensors of the card and of the host.
        """
        name = func.overloadpacket.__name__
        if is_made_of_others(func):
            return func._op_dk(COMPOSITE, *args, **kwargs)
        refuse_mixes(name, args, kwargs)
        if name == "copy_" and isinstance(args[0], OnCard) and self._lags(args):
            self.sent(args[1], host(args[0]).copy_(args[1]), "copy_")
            return args[0]
        if wait := wait_of(name, args, kwargs):
            self.waited(wait)
        here, named = tree_map(host, (list(args), kwargs))
        result = func(*here, **named)
        if name == "copy_" and not isinstance(args[0], OnCard):
            return args[0]
        self.ran(func, here, named, result)
        given = [each for each in tensors_in((args, kwargs)) if isinstance(each, OnCard)]
        return tree_map(lambda it: on_card(it, given), result)

    def _lags(self, args: Sequence[Any]) -> bool:
        """Return whether the arguments of `copy_` are copied while the host goes on."""
        source, at_once = args[1], not (len(args) > 2 and args[2])
        if at_once or isinstance(source, OnCard) or not is_pinned(source):
            return False
        return is_dense(source)

    def runs(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function of tensors of the host as one operator of the card."""

        def operator(*args: Any) -> Any:
            here = tree_map(host, list(args))
            result = func(*here)
            self.ran(func, here, {}, result)
            return on_card(result, [])

        return operator

    def ran(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        """Note an operator that ran on the host's tensors, or record it if a graph is captured."""
        made, written = made_by(result, args, kwargs), written_by(func, args, kwargs)
        name = getattr(func, "overloadpacket", func).__name__
        if name.startswith(("empty", "new_empty")):
            spoil(*made)
        if self.tape is not None:
            self.tape.append(Step(func, args, kwargs, made, written))
        elif made or written:  # else it is a view
            self.launch(name, tensors_in((args, kwargs)), [*made, *written], made)

    def launch(
        self,
        what: str,
        read: Iterable[torch.Tensor],
        written: Iterable[torch.Tensor],
        made: Iterable[torch.Tensor] = (),
    ) -> int:
        """Note a launch on the current stream, with the memory that it uses; return its number.

        Args:
            what: for a fault's sentence.
            read: tensors of the host that it reads.
            written: those that it writes.
            made: those of them that are new.
        """
        stream = current()
        number = stream.launch()
        for tensor in made:
            use_of(tensor).made(stream)
        for use in {use_of(tensor) for tensor in read}:
            use.reads(stream, number, what)
        for use in {use_of(tensor) for tensor in written}:
            use.writes(stream, number, what)
        return number

    def sent(self, source: torch.Tensor, target: torch.Tensor, what: str) -> None:
        """Note a copy from pinned memory, which reads it later.

        Raises:
            RuntimeError: a graph is being captured.
        """
        if self.tape is not None:
            raise RuntimeError("a graph would copy from memory of the host that is used again")
        number = self.launch(what, (), [target])
        self._copies.begin(source, current(), number, f"{what} in {self._place()}")

    def catch_up(self) -> None:
        """Have the host wait for the device, without a note."""
        catch_up()
        self._copies.end()

    def waited(self, what: str, everywhere: bool = False) -> None:
        """Note that the host waits, unless it may there.

        Args:
            what: why.
            everywhere: for all streams, in place of the current one.

        Raises:
            RuntimeError: a graph is being captured.
        """
        if self.tape is not None:
            raise RuntimeError(f"operation not permitted when stream is capturing: {what}")
        place = self._place()
        if place not in self._allowed:
            self.waits.append(f"{what} in {place}")
        if everywhere:
            catch_up()
        else:
            current().synchronize()
        self._copies.end()

    def note(self, fault: str) -> None:
        """Note that an order is relied on which is not there."""
        self.faults.append(f"{fault}, in {self._place()}")

    @property
    def unused(self) -> frozenset[str]:
        """The functions that may wait and did not."""
        return self._allowed - self._used

    def _place(self) -> str:
        """Return the innermost function that may wait, or else the innermost that is not of torch
        or of the card."""
        where, found = "", sys._getframe(1)
        while found is not None:
            module = found.f_globals.get("__name__", "")
            place = f"{module}:{found.f_code.co_qualname}"
            if place in self._allowed:
                self._used.add(place)
                return place
            if not where and not module.startswith(("pretend_", "torch")):
                where = place
            found = found.f_back  # type: ignore[assignment]
        return where
