"""What attention in a vision tower is told of the sequences that are packed into one.

Replaces: nothing.
Why: a tower prepares it from the sizes of whole images; one that encodes only some of their tokens
has shorter sequences.
Relies on: the functions of `MMEncoderAttention` below, with which Qwen2.5-VL's and Qwen3-VL's
`prepare_encoder_metadata` make the same, and for Qwen2-VL, which has no backend that changes them,
on what they return otherwise; a tower's `attn_backend`, `hidden_size`, `tp_size` and
`fp8_padded_hidden_size`, the last three for FlashInfer alone; of Pixtral's on
`_make_packed_sequence_metadata`, with which its `forward` makes them.
vLLM versions: 0.31 to 0.33.
Goes when: towers of vLLM take some tokens of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import nn

__all__ = ["TowerSequences", "device_ends", "pixtral_sequences", "tower_sequences"]


class TowerSequences(NamedTuple):
    """What a tower's layers get, besides positions."""

    ends: torch.Tensor
    """`cu_seqlens`, int32 on the device: where each sequence starts and ends, in patches, as the
    backend counts."""

    longest: torch.Tensor
    """`max_seqlen`, on the CPU."""

    lengths: torch.Tensor | None
    """`sequence_lengths`; None unless the backend asks for them."""


def tower_sequences(
    tower: nn.Module, lengths: Sequence[int], device: torch.device | None = None
) -> TowerSequences:
    """Return what a tower is told of sequences of these lengths, in patches.

    Args:
        tower: vLLM's module with the backend.
        lengths: of the sequences.
        device: of the tower, if that module does not say.
    """
    from vllm.model_executor.layers.attention import MMEncoderAttention

    of_tower: Any = tower
    backend, device = of_tower.attn_backend, device or of_tower.device
    ends = np.array([0, *accumulate(lengths)], dtype=np.int32)
    longest = MMEncoderAttention.compute_max_seqlen(backend, ends)
    return TowerSequences(
        MMEncoderAttention.maybe_recompute_cu_seqlens(
            backend,
            ends,
            getattr(tower, "hidden_size", 0),
            getattr(tower, "tp_size", 1),
            device,
            fp8_padded_hidden_size=getattr(tower, "fp8_padded_hidden_size", None),
        ),
        torch.tensor(longest, dtype=torch.int32),
        MMEncoderAttention.maybe_compute_seq_lens(backend, ends, device),
    )


def pixtral_sequences(tower: nn.Module, lengths: Sequence[int]) -> TowerSequences:
    """Return the same for Pixtral's tower in its transformers form, which leaves it to a function
    of vLLM's.

    Args:
        tower: vLLM's module.
        lengths: of the sequences.
    """
    from vllm.model_executor.models.pixtral import _make_packed_sequence_metadata

    of_tower: Any = tower
    first = of_tower.transformer.layers[0].attention
    return TowerSequences(
        *_make_packed_sequence_metadata(
            list(lengths),
            first.attn.attn_backend,
            of_tower.config.hidden_size,
            first.tp_size,
            of_tower.device,
        )
    )


def device_ends(tower: nn.Module) -> bool:
    """Return whether the backend takes ends that only the device knows; FlashInfer's are made on
    the host."""
    of_tower: Any = tower
    return bool(of_tower.attn_backend.name != "FLASHINFER")
