"""How well the kept tokens of an image stand for the dropped ones, for requests that ask.

With cosine similarities S of the features that the method chose among:

    coverage = mean over the dropped tokens d of max over the kept tokens k of S[d, k]

in [-1, 1], and 1 where nothing was dropped. It is a number on the device. An API server names the
images of a request before the request begins and asks once its first token is there
(`prompt.coverage`): only then the host waits for the device, between two steps of the engine, and
nothing is computed for images that nobody has named. An image that was encoded before anybody named
it is not encoded again, so its coverage is not known.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.nn.functional import normalize

from vllm_pruner.methods.on_device import on_device
from vllm_pruner.plan import ASK_COVERAGE, WATCH

if TYPE_CHECKING:
    from vllm_pruner.methods.base import Kept, VisualTokens
    from vllm_pruner.worker.batches import Group

__all__ = ["WORKER_METHODS", "Coverage", "coverage"]

_MOST = 4096
"""Most images to remember."""


class Coverage:
    """The coverage of the images that were named last."""

    def __init__(self) -> None:
        self._named: OrderedDict[str, torch.Tensor | None] = OrderedDict()

    def watch(self, identities: Sequence[str]) -> None:
        """Compute the coverage of these images when they are encoded.

        Args:
            identities: of their plans.
        """
        for identity in identities:
            self._named.setdefault(identity, None)
            self._named.move_to_end(identity)
        while len(self._named) > _MOST:
            self._named.popitem(last=False)

    def of(self, identities: Sequence[str]) -> list[float | None]:
        """Return the coverage of images; None where it is not known. Waits for the device."""
        found = [self._named.get(identity) for identity in identities]
        return [None if each is None else float(each) for each in found]

    def note(self, tokens: VisualTokens, kept: Kept, group: Group) -> None:
        """Compute the coverage of those images of a group that were named.

        Args:
            tokens: the group's, as its method saw them.
            kept: what was kept. Merged rows, and images that were shrunk before the tower, have no
                tokens that were kept or dropped.
            group: the group.
        """
        compares = kept.rows is None and group.small_grid is None and not group.config.off
        if not self._named or not compares:
            return
        named = {plan.identity: place for place, plan in enumerate(group.plans)}
        named = {name: place for name, place in named.items() if name in self._named}
        if not named:
            return
        at = on_device([*named.values()], kept.index.device)
        found = coverage(tokens.features[at], *group.layout.patches_at(kept.index[at]))
        self._named |= zip(named, found, strict=True)


@torch.no_grad()
def coverage(features: torch.Tensor, kept: torch.Tensor, is_newline: torch.Tensor) -> torch.Tensor:
    """Return `[images]` float32; see the module.

    Args:
        features: `[images, N, D]`, in any float dtype.
        kept: `[images, keep]` int64, the kept tokens.
        is_newline: `[images, keep]` bool, which of them are none of the image's.
    """
    unit = normalize(features.float(), dim=2)
    chosen = unit.gather(1, kept.unsqueeze(2).expand(-1, -1, unit.shape[2]))
    alike = (unit @ chosen.mT).masked_fill(is_newline.unsqueeze(1), -1.0).amax(dim=2)
    is_kept = torch.zeros_like(alike).scatter_reduce(1, kept, (~is_newline).float(), "amax")
    dropped = 1.0 - is_kept
    count = dropped.sum(dim=1)
    return torch.where(count > 0, (alike * dropped).sum(dim=1) / count.clamp_min(1.0), 1.0)


class _Covered(Protocol):
    """The part of a `PrunedModel` that the functions below use."""

    coverage: Coverage


def _watch(model: _Covered, identities: list[str]) -> None:
    model.coverage.watch(identities)


def _ask(model: _Covered, identities: list[str]) -> list[float | None]:
    return model.coverage.of(identities)


WORKER_METHODS: dict[str, Callable[..., Any]] = {WATCH: _watch, ASK_COVERAGE: _ask}
"""The worker methods that an API server calls by name."""
