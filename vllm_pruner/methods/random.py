"""Random: T tokens without replacement, seeded by the image itself.

The baseline that every published method must beat. The seed must come from the content: the same
image has to keep the same tokens on every rank, in every batch, and when a cache entry is computed
again. So each token's key is a hash of the image and the token's position:

    image = sum of the raw bits of the features, modulo 2**64
    key_j = mix(image + seed + j * odd constant)
    keep  = the T tokens of the highest keys

`mix` is the finaliser of SplitMix64 (Steele et al., OOPSLA 2014), in wrapping 64-bit integers.
"""

from __future__ import annotations

import torch
from pydantic import Field

from vllm_pruner.methods.base import Method, Options, VisualTokens

__all__ = ["RANDOM", "RandomOptions"]

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _signed(constant: int) -> int:
    return constant - (1 << 64) if constant >> 63 else constant


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)


class RandomOptions(Options):
    """Options of `random`."""

    seed: int = Field(default=0, ge=-(1 << 63), le=(1 << 63) - 1)
    """A different seed draws different tokens from the same image."""


def _shift(value: torch.Tensor, bits: int) -> torch.Tensor:
    """Logical right shift; torch has only the arithmetic one."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _mix(value: torch.Tensor) -> torch.Tensor:
    value = (value ^ _shift(value, 30)) * _MIX_1
    value = (value ^ _shift(value, 27)) * _MIX_2
    return value ^ _shift(value, 31)


def select(tokens: VisualTokens, keep: int, options: RandomOptions) -> torch.Tensor:
    """Return `[images, keep]` indices; see `Method.select`."""
    features = tokens.features.contiguous()
    bits = features.view(_BITS[features.element_size()])
    image = bits.flatten(1).sum(dim=1, dtype=torch.int64, keepdim=True)
    position = torch.arange(features.shape[1], device=features.device)
    keys = _mix(_mix(image + options.seed) + position * _GOLDEN)
    order = keys.argsort(dim=1, descending=True, stable=True)
    return order[:, :keep].sort(dim=1).values


RANDOM = Method("random", select, RandomOptions)
