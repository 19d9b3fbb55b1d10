"""What stands in a prompt for an image of DeepSeek-V4: one block of tokens, which vLLM's `N-layout`
brings in an order by pairs of rows (`layout.paired_rows`).

[START], the image's tokens with a break behind each row, padding to a multiple of four, [END]; in
front of it vLLM puts as much padding as [START] needs to be the last of a group of four. So each
group that the decoder's attention compresses is of the image alone, or of none. These tokens are
five consecutive ids, and the decoder treats all five alike. A picture of an odd number of rows has
a row of padding beside its last one.

Pruned, the block keeps its ends and its length a multiple of four. Breaks are placeholders among
the kept tokens, as `row_breaks` says, and what stood in for a missing row goes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from vllm.models.deepseek_v4.common.mm_preprocess import (
    COMPRESS_PAD_TO,
    IMAGE_NEW_LINE,
    IMAGE_PAD,
    IMAGE_SENTINEL_BASE_ID,
    safe_resize,
)

from vllm_pruner.layout.cuts import cut_runs
from vllm_pruner.layout.paired_rows import PairedRows

__all__ = ["BREAK", "PADDING", "cut", "layout"]

BREAK, PADDING = (IMAGE_SENTINEL_BASE_ID + role for role in (IMAGE_NEW_LINE, IMAGE_PAD))


def cut(full: Sequence[int], is_embed: Sequence[bool], kept: int) -> list[int]:
    """Return the block of an image of which so many tokens are kept, without the padding in front;
    see `Family.cut`. Of one that keeps all tokens it is vLLM's, with placeholders for breaks."""
    tokens = [token for token, embeds in zip(full, is_embed, strict=True) if embeds]
    run = cut_runs(tokens, [True] * len(tokens), kept)
    if len(tokens) == len(full):  # no block
        return run
    if kept == len(tokens):
        return [run[0] if token == BREAK else token for token in full]
    run += run[:1] * list(full).count(BREAK)
    padding = [PADDING] * (-len(run) % COMPRESS_PAD_TO)
    return [full[0], *run, *padding, full[-1]]


def layout(info: Any, height: int, width: int, mm_kwargs: Mapping[str, object]) -> PairedRows:
    """Return the layout of an image after the processor has resized it; see `Family.layout`. A
    request has no arguments for it."""
    images = info.get_hf_processor(**mm_kwargs).image_processor
    return _grid(
        images.patch_size,
        images.downsample_ratio,
        images.max_n_token,
        images.min_pixels,
        images.max_wh_ratio,
        (height, width),
    )


@lru_cache(maxsize=1024)
def _grid(
    side: int, merged: int, most: int, least_pixels: int, widest: float, size: tuple[int, int]
) -> PairedRows:
    """Return the layout of an image, as vLLM's `load_image` has it before it looks at pixels.

    Args:
        side: of a patch, in pixels.
        merged: rows, and columns, of patches in a token.
        most: tokens of the block.
        least_pixels: to which a smaller image is enlarged.
        widest: how many times as wide as high an image may be before it is squeezed; or None.
        size: height and width of the image in pixels.
    """
    height: float
    width: float
    height, width = size
    if widest is not None and width > height * widest:
        width = height * widest
    if 0 < width * height < least_pixels:
        ratio = (least_pixels / (width * height)) ** 0.5
        height, width = int(height * ratio), int(width * ratio)
    high, wide = math.ceil(height / side) * side, math.ceil(width / side) * side
    rows, columns, high, wide = safe_resize(height, width, high, wide, side, merged, most)
    return PairedRows(rows, columns, high=high // side, wide=wide // side)
