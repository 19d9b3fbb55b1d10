"""VidCom2: the tokens least like a video's average, with more of them from unusual frames.

Liu et al., "Video Compression Commander: Plug-and-Play Inference Acceleration for Video Large
Language Models", EMNLP 2025, https://arxiv.org/abs/2505.14454 (code Apache-2.0, not used here).
With F frames of P tokens, a budget K, r = K / (F P), and the tokens' half of the channels that
varies least:

    x        = tokens over those channels, normalised; mu = their mean, mu_t = mean of frame t
    g(x, c)  = sum over a in {1/8, 1/4, 1/2, 1, 2} of exp(-|x - c|^2 / (2 a))
    v = g(x, mu);  f = g(x, mu_t)
    w        = softmax over frames of (-mean_p v) / 0.01
    k_t      = round(P * min(1, r (1 + w_t - mean w))), at least 1
    keep the k_t tokens of lowest v + f in each frame, then drop the highest or add the lowest
    overall until there are K

The last step is vLLM's (`--video-pruning-method vidcom2`), whose K is max(F, floor(F P (1 - q))) at
rate q; here the caller sets K. `vllm_pruner.select_video` runs it on tensors.

Deviation: float64, one video at a time, so the result does not depend on the batch; ties go to the
lower index.
"""

from __future__ import annotations

import torch

from vllm_pruner.methods.base import Method, Options, VisualTokens

__all__ = ["VIDCOM2"]

_WIDTHS = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0)
_TEMPERATURE = 0.01
_TINY = 2.0**-100


def select(tokens: VisualTokens, keep: int, options: Options) -> torch.Tensor:
    """Return `[videos, keep]` indices; see `Method.select`."""
    videos, total, width = tokens.features.shape
    empty = torch.empty((0, keep), dtype=torch.int64, device=tokens.features.device)
    if total == 0 or videos == 0:
        return empty.expand(videos, 0) if total == 0 else empty
    frames = tokens.features.double().view(videos, tokens.frames, -1, width)
    return torch.stack([_one(video.contiguous(), keep) for video in frames])


def _one(video: torch.Tensor, keep: int) -> torch.Tensor:
    """Return the `[keep]` tokens of one video `[F, P, D]`."""
    frames, places, width = video.shape
    # 1. The half of the channels that varies least, as unit vectors.
    steady = video.flatten(0, 1).var(dim=0, unbiased=False).argsort(stable=True)
    rows = video[:, :, steady[: max(1, width // 2)].sort().values]
    rows = rows / rows.norm(dim=2, keepdim=True).clamp_min(_TINY)
    # 2. How ordinary each token is, in the video and in its frame.
    ordinary = _likeness(rows, rows.mean(dim=(0, 1), keepdim=True))
    score = ordinary + _likeness(rows, rows.mean(dim=1, keepdim=True))
    # 3. Each frame's share of the budget.
    weight = (-ordinary.mean(dim=1) / _TEMPERATURE).softmax(dim=0)
    share = (keep / (frames * places) * (1 + weight - weight.mean())).clamp_max(1.0)
    count = (share * places).round().clamp_min(1).unsqueeze(1)
    # 4. Each frame's least ordinary tokens, then the least ordinary of all others.
    order = score.argsort(dim=1, stable=True)
    place = torch.arange(places, device=order.device).expand_as(order)
    within = torch.empty_like(order).scatter_(1, order, place)
    left_out = (within >= count).flatten()
    by_score = score.flatten().argsort(stable=True)
    chosen = by_score[left_out[by_score].to(torch.int8).argsort(stable=True)]
    return chosen[:keep].sort().values


def _likeness(rows: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
    """Return g `[F, P]` of rows `[F, P, D]` to a centre that broadcasts against them."""
    distance = (rows - centre).square().sum(dim=2)
    return torch.stack([(-distance / (2 * width)).exp() for width in _WIDTHS]).sum(dim=0)


VIDCOM2 = Method("vidcom2", select)
