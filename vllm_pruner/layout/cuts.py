"""How the tokens of an image or video are cut to as many placeholders as the decoder gets rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from vllm_pruner.layout.shares import frame_shares, shares

if TYPE_CHECKING:
    from vllm_pruner.layout.joined_frames import Between

__all__ = ["Cut", "between_frames", "cut_frames", "cut_joined", "cut_runs"]

Cut = Callable[[Sequence[int], Sequence[bool], int], list[int]]
"""`cut(full, is_embed, kept)`: the tokens of an item of which `kept` visual tokens are kept; see
`cut_runs`."""


def cut_runs(
    full: Sequence[int],
    is_embed: Sequence[bool],
    kept: int,
    divide: Callable[[Sequence[int], int], list[int]] = shares,
) -> list[int]:
    """Return an image's tokens with fewer placeholders and all of its structure tokens.

    Structure tokens (row breaks, labels of tiles) may split the placeholders into runs. Each run
    then keeps a share in proportion to its length, rounded as by `layout.shares.shares`.

    Args:
        full: all tokens that the processor inserted for the image.
        is_embed: which of them are placeholders, replaced by the encoder's rows.
        kept: how many placeholders to keep.
        divide: returns the share of each run, given their lengths and `kept`.

    Raises:
        ValueError: a run of placeholders consists of different tokens.
    """
    if all(is_embed) and full.count(full[0]) == len(full):
        return list(full[:kept])  # one run, as most models have it
    pairs = zip(full, is_embed, strict=True)
    runs = [(embeds, list(run)) for embeds, run in groupby(pairs, itemgetter(1))]
    sizes = [len(run) for embeds, run in runs if embeds]
    left = iter(divide(sizes, kept))
    short: list[int] = []
    for embeds, run in runs:
        tokens = [token for token, _ in run]
        if embeds and len(set(tokens)) != 1:
            raise ValueError(f"placeholders are {tokens}; allowed: one token, repeated")
        short += tokens[: next(left)] if embeds else tokens
    return short


def cut_frames(full: Sequence[int], is_embed: Sequence[bool], kept: int) -> list[int]:
    """Return a video's tokens with as many placeholders in each frame as the frame keeps."""
    return cut_runs(full, is_embed, kept, lambda runs, kept: frame_shares(len(runs), kept))


def cut_joined(full: Sequence[int], is_embed: Sequence[bool], kept: int) -> list[int]:
    """Return a video's tokens with one run of placeholders, from its first frame to its last one:
    for the tokens that are kept of any frame, and for the other tokens between frames. The model
    inserts the embeddings of the latter; see `layout.joined_frames`."""
    first, end = is_embed.index(True), len(full) - is_embed[::-1].index(True)
    others = is_embed[first:end].count(False)
    return [*full[:first], *[full[first]] * (kept + others), *full[end:]]


def between_frames(full: Sequence[int], is_embed: Sequence[bool]) -> Between:
    """Return the tokens between each frame of a video and the next one."""
    runs = groupby(zip(full, is_embed, strict=True), itemgetter(1))
    parts = [(embeds, tuple(token for token, _ in run)) for embeds, run in runs]
    frames = [place for place, (embeds, _) in enumerate(parts) if embeds]
    return tuple(parts[place + 1][1] for place in frames[:-1])
