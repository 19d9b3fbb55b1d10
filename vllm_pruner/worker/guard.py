"""Contain the faults of other packages' methods: only the affected requests fail.

An exception in a worker ends the engine, with every request in it. So if a method breaks the
contract, a stand-in selection of the right shape takes its place, and the fault is stored under the
image's identity, under which vLLM also caches everything computed from the stand-in. An API server
asks for faults before it sends the first token of an answer (`prompt.faults`). If nothing asks, as
offline, the fault is raised.
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
"""Most faulty images to remember for a method; with one more, it is not called again."""

_LOGGED = 10
"""Most faults of a method to log."""

Fault = tuple[str, str]
"""A method's name and the message. Not the exception, whose traceback would keep tensors alive."""

_ROOM = 1 / 8
"""Part of a dtype's range that values in a row may take: 8,188 of float16's 65,504."""

_PREFIX = len(foreign_prefix(""))


class Guard:
    """Calls methods of other packages, and remembers their faults until the process ends."""

    def __init__(self) -> None:
        self._asked = False
        self._apart: list[Fault] | None = None
        self._faults: dict[str, dict[str, Fault]] = defaultdict(dict)
        self._ended: dict[str, Fault] = {}

    def expect_questions(self) -> None:
        """Store faults from now on instead of raising them, because an API server asks for them."""
        self._asked = True

    @contextmanager
    def apart(self) -> Iterator[list[Fault]]:
        """Yield a list that collects the faults in the block. They are not stored, because nothing
        computed in the block is cached."""
        self._apart = []
        try:
            yield self._apart
        finally:
            self._apart = None

    def faults_of(self, identities: Sequence[str]) -> list[Fault]:
        """Return the stored faults of images, given their plans' identities."""
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
            tokens: the tokens of images that share the settings and the layout.
            config: the settings, with a method of another package.
            layout: the layout.
            keep: positions kept of each image.
            plans: the plan of each image.

        Raises:
            MethodFault: the method is at fault and `expect_questions` has not been called.
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
        """Return images' rows for the decoder, with zeros for an image with a non-finite value.

        A NaN outlives its request: vLLM masks stale rows of a KV-cache block by multiplying them by
        zero, and zero times NaN is NaN. Values close to the dtype's maximum overflow to infinity
        in a layer, and then become NaN, so they are treated as non-finite.

        Args:
            rows: `[images, keep, width]`, projected.
            plans: the plan of each image.

        Raises:
            MethodFault: rows are not finite and `expect_questions` has not been called.
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
        """Store a fault, or raise it if nothing will ask for it."""
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
        """Stop calling a method: from now on all its images have this fault."""
        prefix = foreign_prefix(fault.method)
        self._ended[prefix] = (fault.method, str(fault))
        self._faults.pop(prefix, None)


class Guarded(Protocol):
    """The part of a `PrunedModel` that the functions below use."""

    guard: Guard


def _expect(model: Guarded) -> None:
    model.guard.expect_questions()


def _ask(model: Guarded, identities: list[str]) -> list[Fault]:
    return model.guard.faults_of(identities)


WORKER_METHODS: dict[str, Callable[..., Any]] = {EXPECT_ASKING: _expect, ASK_FAULTS: _ask}
"""The worker methods that an API server calls by name."""
