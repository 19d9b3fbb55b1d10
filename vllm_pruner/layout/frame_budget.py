"""Spend one budget on a video.

A method for videos sees all frames and divides the budget itself. A method for images sees every
frame as a separate image with an equal share; the remainder goes to the first frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate, groupby, pairwise
from typing import Any

import torch

from vllm_pruner import methods
from vllm_pruner.layout.shares import frame_shares
from vllm_pruner.methods.base import TOWER, Kept, Method, Need, Options, VisualTokens

__all__ = ["choose_of_video"]

_ROWS = ("features", Need.PROJECTED, *sorted(TOWER))
"""Fields of `VisualTokens` with a row for each token."""


def choose_of_video(
    tokens: VisualTokens,
    method: Method,
    options: Options,
    frames: int,
    keep: int,
    run: Callable[[Method, VisualTokens, int, Options], Kept],
) -> Kept:
    """Return the kept tokens of each video, with merged rows if the method merges.

    Args:
        tokens: each field `[videos, frames * P, ...]`, frame by frame.
        method: a method for videos or for images.
        options: the method's options.
        frames: number of frames of each video.
        keep: tokens kept of all frames together.
        run: calls the method.
    """
    if methods.compares_frames(method.name):
        return run(method, replace(tokens, frames=frames), keep, options)
    # One call for consecutive frames of equal shares. A method of another package gets a call for
    # each frame.
    alone = methods.package_of(method.name) is not None
    shares = frame_shares(frames, keep)
    spans = [1] * frames if alone else [len(list(alike)) for _, alike in groupby(shares)]
    parts = []
    for first, end in pairwise([0, *accumulate(spans)]):
        if shares[first]:
            kept = run(method, _of_frames(tokens, frames, first, end), shares[first], options)
            parts.append(_joined(kept, tokens, frames, first, end))
    rows = [part.rows for part in parts if part.rows is not None]
    index = torch.cat([part.index for part in parts], dim=1)
    return Kept(index, torch.cat(rows, dim=1) if rows else None)


def _of_frames(tokens: VisualTokens, frames: int, first: int, end: int) -> VisualTokens:
    """Return frames `first` to `end` of each video as images, video by video."""
    fields: dict[str, Any] = {name: getattr(tokens, name) for name in _ROWS}
    for name, rows in fields.items():
        if rows is not None:
            each = rows.unflatten(1, (frames, -1))[:, first:end]
            fields[name] = each.flatten(0, 1).contiguous()
    if tokens.text is not None:
        fields["text"] = [text for text in tokens.text for _ in range(first, end)]
    return replace(tokens, **fields)


def _joined(kept: Kept, tokens: VisualTokens, frames: int, first: int, end: int) -> Kept:
    """Return what is kept of these frames, with indices that count through the whole video."""
    videos, size = tokens.features.shape[0], tokens.features.shape[1] // frames
    starts = torch.arange(first, end, device=kept.index.device) * size
    index = kept.index.unflatten(0, (videos, -1)) + starts.unsqueeze(1)
    rows = None if kept.rows is None else kept.rows.unflatten(0, (videos, -1)).flatten(1, 2)
    return Kept(index.flatten(1), rows)
