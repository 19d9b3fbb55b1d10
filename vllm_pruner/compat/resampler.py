"""How much the queries of MiniCPM-V's resampler look at each patch.

Replaces: nothing.
Why: what a token shows follows from that alone, and the resampler returns only the tokens.
Relies on: a resampler's `attn` being torch's `MultiheadAttention`, called once by its `forward` and
asked for the weights, which `forward` then drops: `[slices, queries, patches]`, the mean of all
heads, which every rank has.
vLLM versions: 0.32 and 0.33.
Goes when: the resampler returns them, or runs an attention of vLLM's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vllm_pruner.compat.versions import SUPPORTED

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["cross_attention", "weights_of"]


def cross_attention(resampler: nn.Module) -> nn.MultiheadAttention:
    """Return the attention of queries to patches.

    Raises:
        RuntimeError: the resampler has none.
    """
    from torch import nn

    found = getattr(resampler, "attn", None)
    if not isinstance(found, nn.MultiheadAttention):
        raise RuntimeError(
            f"vtprune: {type(resampler).__name__} has no MultiheadAttention at attn as it has in "
            f"vLLM {SUPPORTED}"
        )
    return found


@contextmanager
def weights_of(attention: nn.MultiheadAttention) -> Iterator[list[torch.Tensor]]:
    """Yield a list that gets the weights `[slices, queries, patches]` of the call in the block."""
    seen: list[torch.Tensor] = []

    def look(_: nn.Module, args: tuple[Any, ...], returned: Any) -> None:
        _, weights = returned
        assert weights is not None, "the resampler no longer asks for them"
        seen.append(weights)

    handle = attention.register_forward_hook(look)
    try:
        yield seen
    finally:
        handle.remove()
