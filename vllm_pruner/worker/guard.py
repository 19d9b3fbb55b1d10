"""Methods of other packages, of which one request may fail and nothing else.

An exception in a worker ends the engine, with every request in it. So a method that breaks the
contract is answered for by a stand-in, which has the right shape, and its fault is kept under the
image's identity: everything that vLLM caches of the stand-in has that identity too. An API server
asks for it before it sends a word of an answer (`prompt.faults`). Where nobody asks, as offline,
the fault is raised.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import torch

from vllm_pruner.layout.crop_budget import choose
from vllm_pruner.methods import foreign
from vllm_pruner.methods.faults import MethodFault
from vllm_pruner.plan import ASK_FAULTS, EXPECT_ASKING, ImagePlan, foreign_prefix
from vllm_pruner.worker.attempt import Attempt

if TYPE_CHECKING:
    from vllm_pruner.layout.layout import Layout
    from vllm_pruner.methods.base import Kept, VisualTokens
    from vllm_pruner.settings.config import PruneConfig

__all__ = ["WORKER_METHODS", "Guard"]

logger = logging.getLogger("vllm.vtprune")

_MOST = 1 << 16
"""Faulty images that are remembered of a method; with one more it is not called again."""

_LOGGED = 10
"""Faults of a method that the log tells of."""

Fault = tuple[str, str]
"""A method's name and what it did; no exception, whose traceback would keep tensors alive."""

_ROOM = 1 / 8
"""Part of a number format's range that a row may take: 8,188 of float16's 65,504."""

_PREFIX = len(foreign_prefix(""))


class Guard:
    """Calls these methods, and remembers their faults for as long as this process lives."""

    def __init__(self) -> None:
        self._asked = False
        self._apart: list[Fault] | None = None
        self._faults: dict[str, dict[str, Fault]] = defaultdict(dict)
        self._ended: dict[str, Fault] = {}

    def expect_questions(self) -> None:
        """Keep faults from now on, instead of raising them, for whoever has an answer to send."""
        self._asked = True

    @contextmanager
    def apart(self) -> Iterator[list[Fault]]:
        """Yield a list that the faults in the block go to, and nowhere else: nothing that they are
        about is cached."""
        self._apart = []
        try:
            yield self._apart
        finally:
            self._apart = None

    def faults_of(self, identities: Sequence[str]) -> list[Fault]:
        """Return the faults that images met, given their plans' identities."""
        found = []
        for identity in identities:
            prefix = identity[:_PREFIX]
            fault = self._ended.get(prefix) or self._faults.get(prefix, {}).get(identity)
            if fault is not None:
                found.append(fault)
        return found

    def choose(
        self,
        tokens: VisualTokens,
        config: PruneConfig,
        layout: Layout,
        keep: int,
        plans: Sequence[ImagePlan],
    ) -> Kept:
        """Return a selection of the right shape and range, whatever the method returns.

        Args:
            tokens: of images that share the settings and the layout.
            config: the settings; the method is another package's.
            layout: the layout.
            keep: positions kept of each image.
            plans: of each image.

        Raises:
            MethodFault: nobody asks for it.
        """
        ended = self._ended.get(foreign_prefix(config.method))
        if ended is not None and self._apart is not None:
            self._apart.append(ended)
        attempt = Attempt(is_over=ended is not None)
        kept = choose(tokens, config, layout, keep, attempt)
        for place, fault in attempt.faults.items():
            self._note(plans[place], fault)
        return kept

    def finite(self, rows: torch.Tensor, plans: Sequence[ImagePlan]) -> torch.Tensor:
        """Return what the decoder gets of images, zeros in place of what is not finite.

        A NaN outlives its request: vLLM masks stale rows of a block of the KV cache by a factor of
        zero, which leaves a NaN one. Numbers to which a layer cannot add anything become infinite
        there, and then NaN, so they count as such.

        Args:
            rows: `[images, keep, width]`, projected.
            plans: of each image.

        Raises:
            MethodFault: nobody asks for it.
        """
        most = torch.finfo(rows.dtype).max * _ROOM
        broken = ~(rows.abs() <= most).flatten(1).all(dim=1)
        places = [place for place, is_broken in enumerate(broken.tolist()) if is_broken]
        if not places:
            return rows
        for place in places:
            said = "left an image rows with NaN, infinity or nearly so behind the projector"
            self._note(plans[place], foreign.fault(plans[place].config.method, said))
        return rows.masked_fill(broken[:, None, None], 0.0)

    def _note(self, plan: ImagePlan, fault: MethodFault) -> None:
        """Remember a fault."""
        if self._apart is not None:
            self._apart.append((fault.method, str(fault)))
            return
        if not self._asked:
            raise fault
        prefix = foreign_prefix(fault.method)
        if plan.image == ImagePlan.ANONYMOUS or prefix in self._ended:
            return
        of_method = self._faults[prefix]
        of_method[plan.identity] = (fault.method, str(fault))
        if len(of_method) <= _LOGGED:
            logger.error("vtprune: %s", fault, exc_info=fault.__cause__)
        if foreign.hangs(fault.method):
            self._end(fault)
        elif len(of_method) > _MOST:
            said = f"is not called again after the faults of {_MOST} images"
            self._end(foreign.fault(fault.method, said))

    def _end(self, fault: MethodFault) -> None:
        """Give all images of a method this fault from now on."""
        prefix = foreign_prefix(fault.method)
        self._ended[prefix] = (fault.method, str(fault))
        self._faults.pop(prefix, None)


class Guarded(Protocol):
    """What the functions below ask of a `PrunedModel`."""

    guard: Guard


def _expect(model: Guarded) -> None:
    model.guard.expect_questions()


def _ask(model: Guarded, identities: list[str]) -> list[Fault]:
    return model.guard.faults_of(identities)


WORKER_METHODS: dict[str, Callable[..., Any]] = {EXPECT_ASKING: _expect, ASK_FAULTS: _ask}
"""What an API server calls by name on every worker."""
