"""Relevance of each visual token to a text: the best match that any text token makes of it.

For one image with visual tokens v_1..v_N and a text of tokens e_1..e_M,

    relevance[j] = max_m softmax_j(temperature * cos(e_m, v_j)),   j = 1..N

The softmax runs over the visual tokens, then the maximum over the text: a text token that matches
many visual tokens alike says little about each. An image without text is relevant nowhere: 0.

Two launches, whatever the number of images and texts and however unequal their lengths. The first
multiplies a block of visual tokens by a block of text tokens and leaves the logits (0.6 MB for 2880
x 50, in the L2 cache) and, for each text token, the block's maximum and sum of exponentials; the
second combines those over the blocks and takes the maximum. The visual tokens are read once for
every 32 text tokens. Sums have one order, set by one image's size; no atomics.

Source: AdaFV (arXiv 2501.09532), from the formula in `methods.md` 2.1, temperature 100. Its code
runs one image at a time and copies to the host in between.
"""

# Triton's bodies carry no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import math
from typing import Any

import torch

from vtprune_kernels._triton import (
    capability,
    next_power_of_2,
    register_op,
    tl,
    triton,
    use_triton,
)
from vtprune_kernels.spec import Spec, features

__all__ = ["SPEC", "text_relevance"]

_VISUAL, _TEXT, _CHANNELS = 64, 32, 64
"""Visual tokens, text tokens and channels of a tile. 45 blocks for 2880 visual tokens: fewer would
leave more of the GPU idle. Half the channels for float32, whose operands are in registers: 64 spill
448 bytes a thread on sm_80. Not yet swept on a GPU."""

_SMALLEST_SQUARE = 2.0**-100


def text_relevance(
    visual: torch.Tensor,
    text: torch.Tensor,
    visual_bounds: torch.Tensor,
    text_bounds: torch.Tensor,
    max_visual: int | None = None,
    max_text: int | None = None,
    temperature: float = 100.0,
) -> torch.Tensor:
    """Return for each visual token the highest share of a text token's attention it gets.

    Args:
        visual: `[visual tokens of all images, D]`, any float dtype.
        text: `[text tokens of all images, D]`, same dtype.
        visual_bounds: `[images + 1]` integers, where each image starts and the last one ends.
        text_bounds: `[images + 1]` integers, the same for the texts.
        max_visual: upper bound of an image's tokens; known on the host, it saves launching programs
            that have nothing to do. Default: all.
        max_text: the same for a text; it also bounds the workspace.
        temperature: factor on the cosine.

    Returns:
        `[visual tokens of all images]` float32, 0 to 1.

    Raises:
        ValueError: widths, dtypes or the numbers of images differ.
    """
    if visual.shape[1:] != text.shape[1:] or visual.dtype != text.dtype:
        raise ValueError(f"visual {list(visual.shape)} {visual.dtype}, text {list(text.shape)}")
    if visual_bounds.shape != text_bounds.shape:
        raise ValueError("visual_bounds and text_bounds are for different numbers of images")
    run = _text_relevance_op if use_triton(visual, text) else text_relevance_reference
    return run(visual, text, visual_bounds, text_bounds, max_visual, max_text, temperature)


def text_relevance_reference(
    visual: torch.Tensor,
    text: torch.Tensor,
    visual_bounds: torch.Tensor,
    text_bounds: torch.Tensor,
    max_visual: int | None = None,
    max_text: int | None = None,
    temperature: float = 100.0,
) -> torch.Tensor:
    """Plain torch: all visual tokens by all text tokens, with those of one image as a mask."""
    if text.shape[0] == 0:
        return visual.new_zeros(visual.shape[0], dtype=torch.float32)
    units = []
    images = []
    for rows, bounds in ((visual, visual_bounds), (text, text_bounds)):
        rows = rows.float()
        square = rows.square().sum(dim=-1, keepdim=True)
        units.append(rows * square.clamp_min(_SMALLEST_SQUARE).rsqrt())
        position = torch.arange(rows.shape[0], device=rows.device)
        images.append(torch.bucketize(position, bounds[1:].long(), right=True))
    together = images[0][:, None] == images[1][None, :]
    logits = temperature * (units[0] @ units[1].T)
    shares = logits.masked_fill(~together, -math.inf).softmax(dim=0)
    return shares.masked_fill(~together, 0.0).amax(dim=1)


def _text_relevance_triton(
    visual: torch.Tensor,
    text: torch.Tensor,
    visual_bounds: torch.Tensor,
    text_bounds: torch.Tensor,
    max_visual: int | None = None,
    max_text: int | None = None,
    temperature: float = 100.0,
) -> torch.Tensor:
    """Launch the two kernels."""
    visual = visual if visual.stride(1) == 1 else visual.contiguous()
    text = text if text.stride(1) == 1 else text.contiguous()
    relevance = visual.new_zeros(visual.shape[0], dtype=torch.float32)
    images = visual_bounds.shape[0] - 1
    longest = visual.shape[0] if max_visual is None else max_visual
    texts = text.shape[0] if max_text is None else max_text
    if not longest or not texts or not images:
        return relevance
    blocks = triton.cdiv(longest, _VISUAL)
    logits = visual.new_empty((visual.shape[0], texts), dtype=torch.float32)
    block_max = visual.new_empty((text.shape[0], blocks), dtype=torch.float32)
    block_sum = torch.empty_like(block_max)
    _text_logits_kernel[(blocks, triton.cdiv(texts, _TEXT), images)](
        visual,
        text,
        visual_bounds,
        text_bounds,
        logits,
        block_max,
        block_sum,
        visual.stride(0),
        text.stride(0),
        visual.shape[1],
        texts,
        blocks,
        temperature,
        VISUAL=_VISUAL,
        TEXT=_TEXT,
        CHANNELS=_CHANNELS if visual.element_size() == 2 else _CHANNELS // 2,
        UPCAST=capability(visual.device) == 0,
        num_warps=4,
        num_stages=3,
    )
    _text_max_kernel[(blocks, images)](
        visual_bounds,
        text_bounds,
        logits,
        block_max,
        block_sum,
        relevance,
        texts,
        blocks,
        VISUAL=_VISUAL,
        TEXT=_TEXT,
        BLOCKS=next_power_of_2(blocks),
        num_warps=4,
    )
    return relevance


def _text_relevance_fake(
    visual: torch.Tensor,
    text: torch.Tensor,
    visual_bounds: torch.Tensor,
    text_bounds: torch.Tensor,
    max_visual: int | None = None,
    max_text: int | None = None,
    temperature: float = 100.0,
) -> torch.Tensor:
    return visual.new_empty(visual.shape[0], dtype=torch.float32)


_text_relevance_op = register_op(
    "text_relevance(Tensor visual, Tensor text, Tensor visual_bounds, Tensor text_bounds,"
    " SymInt? max_visual=None, SymInt? max_text=None, float temperature=100.0) -> Tensor",
    _text_relevance_triton,
    text_relevance_reference,
    _text_relevance_fake,
)


@triton.jit
def _text_logits_kernel(
    visual,
    text,
    visual_bounds,
    text_bounds,
    logits,
    block_max,
    block_sum,
    visual_row,
    text_row,
    width,
    texts,
    blocks,
    temperature,
    VISUAL: tl.constexpr,
    TEXT: tl.constexpr,
    CHANNELS: tl.constexpr,
    UPCAST: tl.constexpr,
):
    block, image = tl.program_id(0), tl.program_id(2)
    first_v = tl.load(visual_bounds + image).to(tl.int64)
    first_t = tl.load(text_bounds + image).to(tl.int64)
    v = block * VISUAL + tl.arange(0, VISUAL)
    t = tl.program_id(1) * TEXT + tl.arange(0, TEXT)
    has_v = v < tl.load(visual_bounds + image + 1) - first_v
    has_t = t < tl.load(text_bounds + image + 1) - first_t
    channel = tl.arange(0, CHANNELS)
    product = tl.zeros([TEXT, VISUAL], dtype=tl.float32)
    square_v = tl.zeros([VISUAL], dtype=tl.float32)
    square_t = tl.zeros([TEXT], dtype=tl.float32)
    for start in range(0, width, CHANNELS):
        inside = start + channel < width
        rows_v = tl.load(
            visual + (first_v + v)[:, None] * visual_row + (start + channel)[None, :],
            mask=has_v[:, None] & inside[None, :],
            other=0.0,
        )
        rows_t = tl.load(
            text + (first_t + t)[:, None] * text_row + (start + channel)[None, :],
            mask=has_t[:, None] & inside[None, :],
            other=0.0,
        )
        wide_v, wide_t = rows_v.to(tl.float32), rows_t.to(tl.float32)
        square_v += tl.sum(wide_v * wide_v, axis=1)
        square_t += tl.sum(wide_t * wide_t, axis=1)
        if UPCAST:
            product = tl.dot(wide_t, tl.trans(wide_v), product, input_precision="ieee")
        else:
            product = tl.dot(rows_t, tl.trans(rows_v), product, input_precision="ieee")
    # 7.9e-31 = 2**-100: rows of zeros have no direction, their cosine is 0.
    norm = tl.maximum(square_t, 7.888609052210118e-31)[:, None]
    cosine = product * tl.rsqrt(norm) * tl.rsqrt(tl.maximum(square_v, 7.888609052210118e-31))
    logit = tl.where(has_v[None, :], temperature * cosine, -float("inf"))  # [TEXT, VISUAL]
    highest = tl.max(logit, axis=1)
    # A block past the image's end has no maximum; it contributes 0 * exp(-inf).
    above = tl.where(highest == -float("inf"), 0.0, highest)
    tl.store(
        logits + (first_v + v)[None, :] * texts + t[:, None],
        logit,
        mask=has_v[None, :] & has_t[:, None],
    )
    at = (first_t + t) * blocks + block
    tl.store(block_max + at, highest, mask=has_t)
    tl.store(block_sum + at, tl.sum(tl.exp(logit - above[:, None]), axis=1), mask=has_t)


@triton.jit
def _text_max_kernel(
    visual_bounds,
    text_bounds,
    logits,
    block_max,
    block_sum,
    relevance,
    texts,
    blocks,
    VISUAL: tl.constexpr,
    TEXT: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    image = tl.program_id(1)
    first_v = tl.load(visual_bounds + image).to(tl.int64)
    first_t = tl.load(text_bounds + image).to(tl.int64)
    v = tl.program_id(0) * VISUAL + tl.arange(0, VISUAL)
    has_v = v < tl.load(visual_bounds + image + 1) - first_v
    count = (tl.load(text_bounds + image + 1) - first_t).to(tl.int32)
    block = tl.arange(0, BLOCKS)
    best = tl.zeros([VISUAL], dtype=tl.float32)
    for start in range(0, count, TEXT):
        t = start + tl.arange(0, TEXT)
        at = (first_t + t)[:, None] * blocks + block[None, :]
        listed = (t < count)[:, None] & (block < blocks)[None, :]
        maxima = tl.load(block_max + at, mask=listed, other=-float("inf"))
        sums = tl.load(block_sum + at, mask=listed, other=0.0)
        highest = tl.max(maxima, axis=1)
        highest = tl.where(highest == -float("inf"), 0.0, highest)
        denominator = tl.sum(sums * tl.exp(maxima - highest[:, None]), axis=1)
        logit = tl.load(
            logits + (first_v + v)[:, None] * texts + t[None, :],
            mask=has_v[:, None] & (t < count)[None, :],
            other=-float("inf"),
        )  # [VISUAL, TEXT]
        denominator = tl.where(t < count, denominator, 1.0)
        share = tl.exp(logit - highest[None, :]) / denominator[None, :]
        best = tl.maximum(best, tl.max(share, axis=1))
    tl.store(relevance + first_v + v, best, mask=has_v)


def _make_inputs(
    kind: str, size: int, dtype: torch.dtype, device: torch.device | str, large: bool = False
) -> dict[str, Any]:
    width = 4096 if large else 72
    visual = [0, size, size + max(1, size // 3), 2 * size]
    text = [0, 5, 5, 5 + (50 if large else 35)]  # the second image comes without a text
    return {
        "visual": features(kind, (visual[-1], width), dtype, device),
        "text": features(kind, (text[-1], width), dtype, device, seed=1),
        "visual_bounds": torch.tensor(visual, device=device),
        "text_bounds": torch.tensor(text, device=device),
        "max_visual": size,
        "max_text": 50 if large else 35,
    }


SPEC = Spec(
    name="text_relevance",
    op=text_relevance,
    reference=text_relevance_reference,
    launcher=_text_relevance_triton,
    registered=_text_relevance_op,
    make_inputs=_make_inputs,
    # A cosine in float32 is good to about 1e-7 whatever the dtype of the input, its products being
    # exact for 16-bit ones; the temperature makes that 1e-5 of a value at most 1.
    tolerance={torch.float32: 2e-5, torch.float16: 2e-5, torch.bfloat16: 2e-5},
)
