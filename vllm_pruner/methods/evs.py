"""EVS: of a video, the tokens that changed most since the frame before.

NVIDIA's Efficient Video Sampling, after its definition in vLLM 0.32
(`vllm/multimodal/evs.py`, Apache-2.0, not used here). With token v_(t,p) at place p of frame t:

    dis(t, p) = 1 - cos(v_(t,p), v_(t-1,p));  in the first frame 255
    keep the K tokens of highest dis, ties to the lower index

vLLM's K is max(tokens of a frame, floor(all * (1 - rate))), so that the first frame is kept whole;
here K is the caller's. For tensors: `vllm_pruner.select_video`. vLLM prunes videos by it itself too
(`--video-pruning-rate`).

Deviation: similarities are in fixed point (`vtprune_kernels.cosine_gram`), the same in any batch.
"""

from __future__ import annotations

import torch
from vtprune_kernels import row_max_cosine, top_k_sorted

from vllm_pruner.methods.base import Method, Options, VisualTokens

__all__ = ["EVS"]

_FIRST_FRAME = 255.0


def select(tokens: VisualTokens, keep: int, options: Options) -> torch.Tensor:
    """Return `[videos, keep]` indices; see `Method.select`."""
    videos, total, width = tokens.features.shape
    frames = tokens.features.view(videos, tokens.frames, -1, width)
    # One segment a pair of tokens: the cosine of the one to the other.
    now, before = frames[:, 1:].reshape(-1, 1, width), frames[:, :-1].reshape(-1, 1, width)
    cosine, _ = row_max_cosine(now, before)
    changed = torch.full((videos, total), _FIRST_FRAME, device=tokens.features.device)
    changed[:, total // max(1, tokens.frames) :] = 1 - cosine.view(videos, -1)
    return top_k_sorted(changed, keep)


EVS = Method("evs", select)
