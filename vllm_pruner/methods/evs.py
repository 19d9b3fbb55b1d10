"""EVS: the tokens of a video that changed most since the previous frame.

NVIDIA's Efficient Video Sampling, as vLLM 0.32 defines it
(`vllm/multimodal/video_prune/evs.py`, Apache-2.0, not used here). With token v_(t,p) at place p of
frame t:

    dis(t, p) = 1 - cos(v_(t,p), v_(t-1,p));  in the first frame 255
    keep the K tokens of highest dis, ties to the lower index

vLLM's K is max(tokens of a frame, floor(all * (1 - rate))), so the first frame is kept whole; here
the caller sets K. `vllm_pruner.select_video` runs it on tensors. vLLM itself has it as
`--video-pruning-rate`.

Deviation: similarities are in fixed point (`vtprune_kernels.row_max_cosine`), so the result does
not depend on the batch.
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
    # Each pair of tokens is a segment of its own: its one cosine is the maximum.
    now, before = frames[:, 1:].reshape(-1, 1, width), frames[:, :-1].reshape(-1, 1, width)
    cosine, _ = row_max_cosine(now, before)
    changed = torch.full((videos, total), _FIRST_FRAME, device=tokens.features.device)
    changed[:, total // max(1, tokens.frames) :] = 1 - cosine.view(videos, -1)
    return top_k_sorted(changed, keep)


EVS = Method("evs", select)
