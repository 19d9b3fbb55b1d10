"""Launch every kernel once when the model is loaded, so that no request waits for compilation.

A kernel compiles at its first launch, which takes seconds and delays all requests: `dedup` took
12.5 s on an H200 (2026-11-27). The compiled variants depend on dtypes and on the number of tokens
rounded to powers of two, not on the number of kept tokens or images, so a few launches per method
cover them all. Triton caches compiled kernels on disk: the next start is much faster.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from vtprune_kernels import gather_rows

from vllm_pruner import methods
from vllm_pruner.methods.base import TOWER, Need, VisualTokens
from vllm_pruner.methods.ragged import Ragged
from vllm_pruner.plan import ImagePlan
from vllm_pruner.tower import FEATURES
from vllm_pruner.worker.columns import device_of, parameter_of

if TYPE_CHECKING:
    from vllm_pruner.methods.base import Method
    from vllm_pruner.tower import EncoderImage, Tower

__all__ = ["SMALLEST", "WarmUp", "random_tokens", "sizes_up_to", "warm_up"]

logger = logging.getLogger("vllm.vtprune")

SMALLEST = 64
"""Tokens of the smallest size class of the kernels (`size_class` in `vtprune_kernels`)."""

_KEPT = 64
"""Tokens to keep: enough for every step of every method to run."""

_WORDS = 3


def sizes_up_to(most: int) -> list[int]:
    """Return one number of tokens for each size class of images of up to `most` tokens."""
    sizes = [most]
    while sizes[-1] > SMALLEST:
        sizes.append(1 << (sizes[-1] - 1).bit_length() - 1)
    return sizes


class WarmUp:
    """Warms a model up when vLLM profiles its memory, which is after its weights are loaded."""

    def __init__(
        self, tower: Tower, names: Sequence[str], tokens: int, *, of_one_size: bool
    ) -> None:
        """Store the arguments of `warm_up`. Without a GPU there is nothing to compile."""
        self._tower, self._names, self._tokens = tower, names, tokens
        self._of_one_size = of_one_size
        self._device = device_of(tower.module)
        self._is_cold = self._device.type == "cuda"

    def once(self, plans: Sequence[ImagePlan], images: Callable[[], list[EncoderImage]]) -> bool:
        """Warm up at the first call, unless that is a request because vLLM profiled nothing; return
        whether this call did.

        Args:
            plans: the plans of vLLM's dummy images, or none if they are not pruned.
            images: returns these images; none for a video.
        """
        if not self._is_cold:
            return False
        self._is_cold = False
        if any(plan.image != ImagePlan.ANONYMOUS for plan in plans):
            return False
        start = time.perf_counter()
        warm_up(self._tower, images()[:1], self._names, self._tokens, of_one_size=self._of_one_size)
        torch.cuda.synchronize(self._device)
        logger.info(
            "vtprune: kernels of %d methods were compiled or found in Triton's cache in %.1f s",
            len(self._names),
            time.perf_counter() - start,
        )
        return True


@torch.no_grad()
def warm_up(
    tower: Tower,
    images: Sequence[EncoderImage],
    names: Iterable[str],
    tokens: int,
    *,
    of_one_size: bool,
) -> None:
    """Launch all kernels of methods once for each size class.

    Args:
        tower: the model's tower.
        images: one image to encode, whose result is discarded, or none.
        names: the methods that a request may name. Those of other packages are skipped, because
            they run guarded only in requests.
        tokens: visual tokens of the largest image.
        of_one_size: whether all images have that many.
    """
    own = [methods.get(name) for name in names if methods.package_of(name) is None]
    needs = frozenset(need for method in own for need in method.needs)
    if images:
        tower.encode(images, needs & TOWER)
    for size in [tokens] if of_one_size else sizes_up_to(tokens):
        made = random_tokens(tower, size, needs)
        # The tokens that remain after some are chosen may be in the next smaller class.
        counts = {min(_KEPT, size // 2), *((size - 1,) if of_one_size else ())}
        for method in own:
            for count in sorted(counts):
                _launch(method, made, count, of_one_size=of_one_size)


def _launch(method: Method, tokens: VisualTokens, count: int, *, of_one_size: bool) -> None:
    if method.shrink is not None or count < 1:
        return
    kept = method.choose(tokens, count, method.options())
    if method.ragged and not of_one_size:
        # Launches what several would.
        ragged = Ragged.of([tokens.features.shape[1]], [count], tokens.features.device)
        method.choose(replace(tokens, grid=None, ragged=ragged), count, method.options())
    seen = (FEATURES, *(method.needs & TOWER))  # in the order in which crops are arranged
    gather_rows([getattr(tokens, name) for name in seen], kept.index)
    gather_rows([tokens.features], kept.index)
    if tokens.projected is not None:
        gather_rows([tokens.projected], kept.index)


def random_tokens(tower: Tower, size: int, needs: frozenset[Need]) -> VisualTokens:
    """Return random tokens of one image, with all inputs that a method may read.

    Args:
        tower: what would make them; projects them.
        size: number of tokens.
        needs: what methods read of the encoder.
    """
    made: dict[str, Any] = {}
    device = parameter_of(tower.module).device
    for name, (width, dtype) in tower.columns(needs & TOWER).items():
        shape = (1, size, width)[: 3 if width else 2]
        made[name] = torch.rand(shape, dtype=dtype, device=device)
    projected, own = tower.project(made[FEATURES]), tower.own_width
    if own is not None:
        projected = projected[..., :own].contiguous()
        made[FEATURES] = made[FEATURES][..., :own].contiguous()
    text: Sequence[torch.Tensor] = [projected[0, :_WORDS].clone()]
    return VisualTokens(**made, projected=projected, text=text, grid=(1, size))
