"""Every kernel that a request could be the first to launch, launched when the model is loaded.

A kernel compiles at its first launch, for seconds, and all requests wait for it: `dedup` took an
H200 12.5 s (2026-11-27). What is compiled depends on the types and on powers of two of the number
of tokens, not on how many are kept or of how many images, so a few launches of a method are all.
Triton keeps what it compiled on the disk: the next start takes a fraction of the first one's time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from vtprune_kernels import gather_rows

from vllm_pruner import methods
from vllm_pruner.methods.base import TOWER, Need, VisualTokens
from vllm_pruner.plan import ImagePlan
from vllm_pruner.tower import FEATURES

if TYPE_CHECKING:
    from vllm_pruner.methods.base import Method
    from vllm_pruner.tower import EncoderImage, Tower

__all__ = ["SMALLEST", "WarmUp", "sizes_up_to", "warm_up"]

logger = logging.getLogger("vllm.vtprune")

SMALLEST = 64
"""Tokens of the smallest class of the kernels (`vtprune_kernels` has `size_class`)."""

_KEPT = 64
"""Enough that no part of a method is left out for want of tokens."""

_WORDS = 3


def sizes_up_to(most: int) -> list[int]:
    """Return one number of tokens of each class that images of up to so many tokens are in."""
    sizes = [most]
    while sizes[-1] > SMALLEST:
        sizes.append(1 << (sizes[-1] - 1).bit_length() - 1)
    return sizes


class WarmUp:
    """The warm-up of a model, when vLLM profiles memory with it: weights are loaded then."""

    def __init__(
        self, tower: Tower, names: Sequence[str], tokens: int, *, of_one_size: bool
    ) -> None:
        """Remember what `warm_up` takes. Without a GPU there is nothing to compile."""
        self._tower, self._names, self._tokens = tower, names, tokens
        self._of_one_size = of_one_size
        self._device = next(tower.module.parameters()).device
        self._is_cold = self._device.type == "cuda"

    def once(self, plans: Sequence[ImagePlan], images: Callable[[], list[EncoderImage]]) -> None:
        """Warm up at the first call, unless a request makes it, because vLLM profiles nothing.

        Args:
            plans: of vLLM's dummy images, or none of what is not pruned.
            images: returns them; none of a video.
        """
        if not self._is_cold:
            return
        self._is_cold = False
        if any(plan.image != ImagePlan.ANONYMOUS for plan in plans):
            return
        start = time.perf_counter()
        warm_up(self._tower, images()[:1], self._names, self._tokens, of_one_size=self._of_one_size)
        torch.cuda.synchronize(self._device)
        logger.info(
            "vtprune: kernels of %d methods were compiled or found in Triton's cache in %.1f s",
            len(self._names),
            time.perf_counter() - start,
        )


@torch.no_grad()
def warm_up(
    tower: Tower,
    images: Sequence[EncoderImage],
    names: Iterable[str],
    tokens: int,
    *,
    of_one_size: bool,
) -> None:
    """Launch all that methods launch, once for each class of their size.

    Args:
        tower: as it is asked in requests.
        images: one of the model's, of which nothing is kept, or none.
        names: the methods that a request may name. Those of other packages are left out: what they
            do is only guarded in a request.
        tokens: visual tokens of the largest image.
        of_one_size: whether there is no other one.
    """
    own = [methods.get(name) for name in names if methods.package_of(name) is None]
    needs = frozenset(need for method in own for need in method.needs)
    if images:
        tower.encode(images, needs & TOWER)
    for size in [tokens] if of_one_size else sizes_up_to(tokens):
        made = _tokens(tower, size, needs)
        # What is left when some are chosen may be in the class below.
        counts = {min(_KEPT, size // 2), *((size - 1,) if of_one_size else ())}
        for method in own:
            for count in sorted(counts):
                _launch(method, made, count)


def _launch(method: Method, tokens: VisualTokens, count: int) -> None:
    if method.shrink is not None or count < 1:
        return
    kept = method.choose(tokens, count, method.options())
    seen = (FEATURES, *(method.needs & TOWER))  # in the order that crops are arranged in
    gather_rows([getattr(tokens, name) for name in seen], kept.index)
    gather_rows([tokens.features], kept.index)
    if tokens.projected is not None:
        gather_rows([tokens.projected], kept.index)


def _tokens(tower: Tower, size: int, needs: frozenset[Need]) -> VisualTokens:
    """Return tokens of one image; no method looks at what it did not ask for."""
    made: dict[str, Any] = {}
    device = next(tower.module.parameters()).device
    for name, (width, dtype) in tower.columns(needs & TOWER).items():
        shape = (1, size, width)[: 3 if width else 2]
        made[name] = torch.rand(shape, dtype=dtype, device=device)
    projected, own = tower.project(made[FEATURES]), tower.own_width
    if own is not None:
        projected = projected[..., :own].contiguous()
        made[FEATURES] = made[FEATURES][..., :own].contiguous()
    text: Sequence[torch.Tensor] = [projected[0, :_WORDS].clone()]
    return VisualTokens(**made, projected=projected, text=text, grid=(1, size))
