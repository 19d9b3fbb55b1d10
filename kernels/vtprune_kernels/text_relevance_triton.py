"""Kernels of `text_relevance`: two launches, whatever the number of images and texts and however
unequal their lengths.

The first multiplies a block of visual tokens by a block of text tokens and stores the logits (0.6
MB for 2880 x 50, in the L2 cache) and, for each text token, the block's maximum and sum of
exponentials. The second combines those over the blocks and takes the maximum. The visual tokens are
read once for every 32 text tokens. The order of each sum is fixed by one image's size; no atomics.
"""

# Triton's bodies carry no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch

from vtprune_kernels._triton import flags, tl, triton
from vtprune_kernels.gpu import gpu_of

__all__ = ["text_relevance_triton"]


_VISUAL, _TEXT, _CHANNELS = 64, 32, 64
"""Visual tokens, text tokens and channels of a tile. 45 blocks for 2880 visual tokens: fewer would
leave more of the GPU idle. Half the channels for float32, whose operands are in registers: 64 spill
448 bytes a thread on sm_80. There float32 may have all registers, else the assembler stops at 80
under Triton 3.6 and 3.7 and spills 8 bytes a thread. Not yet swept on a GPU."""


def text_relevance_triton(
    visual: torch.Tensor,
    text: torch.Tensor,
    visual_bounds: torch.Tensor,
    text_bounds: torch.Tensor,
    max_visual: int | None = None,
    max_text: int | None = None,
    temperature: float = 100.0,
    valid: torch.Tensor | None = None,
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
    wide, gpu = visual.element_size() == 4, gpu_of(visual.device)
    logits = visual.new_empty((visual.shape[0], texts), dtype=torch.float32)
    block_max = visual.new_empty((text.shape[0], blocks), dtype=torch.float32)
    block_sum = torch.empty_like(block_max)
    _text_logits_kernel[(blocks, triton.cdiv(texts, _TEXT), images)](
        visual,
        text,
        visual_bounds,
        text_bounds,
        flags(valid, visual),
        logits,
        block_max,
        block_sum,
        visual.stride(0),
        text.stride(0),
        visual.shape[1],
        texts,
        blocks,
        temperature,
        HAS_VALID=valid is not None,
        VISUAL=_VISUAL,
        TEXT=_TEXT,
        CHANNELS=_CHANNELS // 2 if wide else _CHANNELS,
        UPCAST=gpu.interpreted,
        num_warps=4,
        num_stages=3,
        **(gpu.registers(255) if wide and gpu.capability < 90 else {}),
    )
    _text_max_kernel[(blocks, images)](
        visual_bounds,
        text_bounds,
        flags(valid, visual),
        logits,
        block_max,
        block_sum,
        relevance,
        texts,
        blocks,
        HAS_VALID=valid is not None,
        VISUAL=_VISUAL,
        TEXT=_TEXT,
        num_warps=4,
    )
    return relevance


@triton.jit(do_not_specialize=["texts", "blocks"])
def _text_logits_kernel(
    visual,
    text,
    visual_bounds,
    text_bounds,
    valid,
    logits,
    block_max,
    block_sum,
    visual_row,
    text_row,
    width,
    texts,
    blocks,
    temperature,
    HAS_VALID: tl.constexpr,
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
    if HAS_VALID:
        has_v = tl.load(valid + first_v + v, mask=has_v, other=0) != 0
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


@triton.jit(do_not_specialize=["texts", "blocks"])
def _text_max_kernel(
    visual_bounds,
    text_bounds,
    valid,
    logits,
    block_max,
    block_sum,
    relevance,
    texts,
    blocks,
    HAS_VALID: tl.constexpr,
    VISUAL: tl.constexpr,
    TEXT: tl.constexpr,
):
    image = tl.program_id(1)
    first_v = tl.load(visual_bounds + image).to(tl.int64)
    first_t = tl.load(text_bounds + image).to(tl.int64)
    v = tl.program_id(0) * VISUAL + tl.arange(0, VISUAL)
    has_v = v < tl.load(visual_bounds + image + 1) - first_v
    if HAS_VALID:
        has_v = tl.load(valid + first_v + v, mask=has_v, other=0) != 0
    count = (tl.load(text_bounds + image + 1) - first_t).to(tl.int32)
    best = tl.zeros([VISUAL], dtype=tl.float32)
    for start in range(0, count, TEXT):
        t = start + tl.arange(0, TEXT)
        # One block after the other: the order must not depend on how long other images are.
        at = (first_t + t) * blocks
        highest = tl.full([TEXT], -float("inf"), dtype=tl.float32)
        for i in range(blocks):
            maximum = tl.load(block_max + at + i, mask=t < count, other=-float("inf"))
            highest = tl.maximum(highest, maximum)
        highest = tl.where(highest == -float("inf"), 0.0, highest)
        denominator = tl.zeros([TEXT], dtype=tl.float32)
        for i in range(blocks):
            maximum = tl.load(block_max + at + i, mask=t < count, other=-float("inf"))
            part = tl.load(block_sum + at + i, mask=t < count, other=0.0)
            denominator += part * tl.exp(maximum - highest)
        logit = tl.load(
            logits + (first_v + v)[:, None] * texts + t[None, :],
            mask=has_v[:, None] & (t < count)[None, :],
            other=-float("inf"),
        )  # [VISUAL, TEXT]
        denominator = tl.where(t < count, denominator, 1.0)
        share = tl.exp(logit - highest[None, :]) / denominator[None, :]
        best = tl.maximum(best, tl.max(share, axis=1))
    tl.store(relevance + first_v + v, best, mask=has_v)
