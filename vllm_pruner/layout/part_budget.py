"""Spend one budget on parts of an image or video, each of which a method sees as an image of its
own: crops, tiles, or the frames of a video.

A method for videos sees all frames and divides the budget itself. A method for images sees every
frame as a separate image with an equal share; the remainder goes to the first frames.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

import torch

from vllm_pruner import methods
from vllm_pruner.layout.shares import frame_shares
from vllm_pruner.methods.base import Kept, Method, Options, VisualTokens

__all__ = ["Run", "choose_of_parts", "choose_of_video"]

Run = Callable[[Method, VisualTokens, int, Options], Kept]
"""`run(method, tokens, keep, options)`: calls the method; by default, `Method.choose`."""


def choose_of_video(
    tokens: VisualTokens, method: Method, options: Options, frames: int, keep: int, run: Run
) -> Kept:
    """Return the kept tokens of each video, with merged rows if the method merges.

    Args:
        tokens: each field `[videos, frames * P, ...]`, frame by frame; the grid is a frame's.
        method: a method for videos or for images.
        options: the method's options.
        frames: number of frames of each video.
        keep: tokens kept of all frames together.
        run: see `Run`.
    """
    if methods.compares_frames(method.name):
        return run(method, replace(tokens, frames=frames), keep, options)
    number = tokens.features.shape[1]
    of_frames = torch.arange(number, device=tokens.features.device).split(number // frames)
    shares = frame_shares(frames, keep)
    return choose_of_parts(tokens, method, options, of_frames, shares, run)


def choose_of_parts(
    tokens: VisualTokens,
    method: Method,
    options: Options,
    parts: Sequence[torch.Tensor],
    shares: Sequence[int],
    run: Run,
) -> Kept:
    """Return the kept tokens of each image, with merged rows if the method merges.

    Parts of one size and one share are one call. A method of another package gets a call for each
    part, in which an image that it fails at has its own place (`worker.attempt`).

    Args:
        tokens: each field `[images, N, ...]`; the grid, if any, is that of every part.
        method: a method for images.
        options: the method's options.
        parts: the tokens of each part, `[size]` int64, ascending; none is in two parts.
        shares: how many each part keeps.
        run: see `Run`.
    """
    alone = methods.package_of(method.name) is not None
    calls: dict[Hashable, list[int]] = defaultdict(list)
    for place, (part, share) in enumerate(zip(parts, shares, strict=True)):
        if share:
            calls[place if alone else (len(part), share)].append(place)
    images = len(tokens.features)
    found = [Kept(parts[0].new_empty(images, 0))]
    for places in calls.values():
        index = torch.stack([parts[place] for place in places])
        kept = run(method, replace(tokens.at(index), grid=tokens.grid), shares[places[0]], options)
        found.append(_of_images(kept, index, images))
    index, order = torch.cat([each.index for each in found], dim=1).sort(dim=1)
    rows = [each.rows for each in found if each.rows is not None]
    return Kept(index, torch.cat(rows, dim=1).take_along_dim(order[..., None], 1) if rows else None)


def _of_images(kept: Kept, index: torch.Tensor, images: int) -> Kept:
    """Return what is kept of parts `[images * parts, share]` as tokens of the images."""
    chosen = kept.index.unflatten(0, (images, -1))
    within = index.expand(images, -1, -1).gather(2, chosen).flatten(1)
    rows = None if kept.rows is None else kept.rows.unflatten(0, (images, -1)).flatten(1, 2)
    return Kept(within, rows)
