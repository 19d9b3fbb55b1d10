"""Kernels of `cosine_gram`, and the product of tiles that other operators share.

On tensor cores the integers of the definition are three int8 limbs, u = a 2**16 + b 2**8 + c. Their
products add up in int32 accumulators: exact for any number of channels below 65,536, without
assumptions about how a floating-point tensor core rounds. Nine int8 products cost as much as four
and a half in fp16; two fp16 limbs would need four, but also a promotion of their float32
accumulators every 16 channels, which costs more than it saves. The first launch normalises and
splits (it reads a row and writes 3 bytes a channel); the second multiplies the tiles on and above
the diagonal, and stores each of those above it twice.
"""

# Triton's bodies carry no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch

from vtprune_kernels._triton import flags, next_power_of_2, tl, triton
from vtprune_kernels.gpu import gpu_of

__all__ = ["TILE_CHANNELS", "cosine_gram_triton", "cosine_tile", "tile_of", "tile_pointers"]
__all__ += ["unit_limbs"]


_TILE, _WARPS = 64, 8
"""Rows and columns of a tile. Nine int32 accumulators of 64 x 64 take 144 registers per thread in 8
warps; in 4 warps they do not fit. Not yet swept on a GPU."""

_SMALL_TILE, _SMALL_WARPS = 32, 4
"""Before Hopper, and on AMD's GPUs, the operands take registers too: 64 x 64 spills with any number
of warps. It also spills on Blackwell under Triton 3.6 (sm_100, 400 to 656 bytes a thread), but not
under 3.9."""

_LIMB_ROWS = 1
"""Rows that a program of the first launch normalises. Not yet swept on a GPU."""

TILE_CHANNELS = 64
"""Channels per step: six 4 KB limb tiles a stage, three stages. Not yet swept on a GPU."""


def cosine_gram_triton(
    features: torch.Tensor, rows: torch.Tensor | None = None, valid: torch.Tensor | None = None
) -> torch.Tensor:
    """Launch the split into limbs and the product of tiles."""
    limbs = unit_limbs(features, rows, valid)
    _, segments, count, padded = limbs.shape
    gram = features.new_empty((segments, count, count), dtype=torch.float32)
    tile, warps = tile_of(features.device)
    tiles = triton.cdiv(count, tile)
    if gram.numel():
        _gram_kernel[(tiles, tiles, segments)](
            limbs,
            gram,
            flags(valid, limbs),
            limbs.stride(0),
            count,
            padded,
            HAS_VALID=valid is not None,
            TILE=tile,
            CHANNELS=TILE_CHANNELS,
            num_warps=warps,
            num_stages=3,
        )
    return gram


def tile_of(device: torch.device) -> tuple[int, int]:
    """Return the tile's rows and the number of warps for a device."""
    found = gpu_of(device).capability
    old = found >= 100 and tuple(map(int, triton.__version__.split(".")[:2])) < (3, 9)
    return (_SMALL_TILE, _SMALL_WARPS) if found < 90 or old else (_TILE, _WARPS)


def unit_limbs(
    features: torch.Tensor, rows: torch.Tensor | None = None, valid: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the integers 2**22 * unit as int8 limbs `[3, segments, R, D padded]`, high one first;
    the launch that precedes a product of tiles. Rows that do not exist are zeros."""
    segments, available, width = features.shape
    count = available if rows is None else rows.shape[1]
    padded = triton.cdiv(max(1, width), TILE_CHANNELS) * TILE_CHANNELS
    limbs = features.new_empty((3, segments, count, padded), dtype=torch.int8)
    if limbs.numel():
        _limbs_kernel[(triton.cdiv(count, _LIMB_ROWS), segments)](
            features,
            limbs if rows is None else rows.contiguous(),
            flags(valid, limbs),
            limbs,
            features.stride(0),
            features.stride(1),
            features.stride(2),
            limbs.stride(0),
            count,
            width,
            padded,
            HAS_ROWS=rows is not None,
            HAS_VALID=valid is not None,
            ROWS=_LIMB_ROWS,
            BLOCK=min(1024, next_power_of_2(padded)),
            num_warps=4,
        )
    return limbs


# VisPruner's pool begins anywhere in a ranking.
@triton.jit(do_not_specialize=["count"], do_not_specialize_on_alignment=["rows"])
def _limbs_kernel(
    features,
    rows,
    valid,
    limbs,
    features_segment,
    features_row,
    features_channel,
    plane,
    count,
    width,
    padded,
    HAS_ROWS: tl.constexpr,
    HAS_VALID: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    segment, plane = tl.program_id(1).to(tl.int64), plane.to(tl.int64)
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    exists = i < count
    source = i.to(tl.int64)
    if HAS_ROWS:
        source = tl.load(rows + segment * count + i, mask=exists, other=0)
    if HAS_VALID:  # nothing of padding is read
        exists = tl.load(valid + segment * count + i, mask=exists, other=0) != 0
    begin = (features + segment * features_segment + source * features_row)[:, None]
    squares = tl.zeros([ROWS, BLOCK], dtype=tl.float64)
    for start in range(0, padded, BLOCK):
        channel = (start + tl.arange(0, BLOCK))[None, :].to(tl.int64)
        read = exists[:, None] & (channel < width)
        value = tl.load(begin + channel * features_channel, mask=read, other=0.0)
        value = value.to(tl.float32).to(tl.float64)
        squares += value * value
    norm = tl.sqrt(tl.sum(squares, axis=1))
    # 2**22 and 2**-100. A norm of infinity makes the scale 0, one of NaN makes it NaN.
    norm = tl.where(norm < 7.888609052210118e-31, 7.888609052210118e-31, norm)
    scale = (4194304.0 / norm).to(tl.float32).to(tl.float64)[:, None]
    target = (limbs + (segment * count + i) * padded)[:, None]
    for start in range(0, padded, BLOCK):
        channel = (start + tl.arange(0, BLOCK))[None, :].to(tl.int64)
        read = exists[:, None] & (channel < width)
        value = tl.load(begin + channel * features_channel, mask=read, other=0.0)
        # The product of two float32 is exact in float64, and adding 1.5 * 2**52 rounds it to an
        # integer, half to even, as torch.round does.
        unit = value.to(tl.float32).to(tl.float64) * scale
        unit = (unit + 6755399441055744.0) - 6755399441055744.0
        unit = tl.where(unit == unit, unit, 0.0).to(tl.int32)
        low = ((unit + 128) & 255) - 128
        rest = (unit - low) >> 8
        middle = ((rest + 128) & 255) - 128
        high = (rest - middle) >> 8
        inside = (i < count)[:, None] & (channel < padded)
        tl.store(target + channel, high.to(tl.int8), mask=inside)
        tl.store(target + plane + channel, middle.to(tl.int8), mask=inside)
        tl.store(target + 2 * plane + channel, low.to(tl.int8), mask=inside)


@triton.jit
def cosine_tile(
    limbs_i, limbs_j, plane_i, plane_j, padded, TILE: tl.constexpr, CHANNELS: tl.constexpr
):
    """Multiply two tiles of rows, `[TILE, CHANNELS]` pointers to their first high limbs.

    Each product has its own accumulator. Where two products share one, Triton gives them different
    layouts on Hopper (`warpsPerTile` of chained dots) and moves the sum between them through shared
    memory at every step: 54 barriers in a program, now 7.
    """
    plane_i, plane_j = plane_i.to(tl.int64), plane_j.to(tl.int64)  # twice 2**30 is over 32 bits
    high_high = tl.zeros([TILE, TILE], dtype=tl.int32)
    high_middle = tl.zeros([TILE, TILE], dtype=tl.int32)
    middle_high = tl.zeros([TILE, TILE], dtype=tl.int32)
    high_low = tl.zeros([TILE, TILE], dtype=tl.int32)
    middle_middle = tl.zeros([TILE, TILE], dtype=tl.int32)
    low_high = tl.zeros([TILE, TILE], dtype=tl.int32)
    middle_low = tl.zeros([TILE, TILE], dtype=tl.int32)
    low_middle = tl.zeros([TILE, TILE], dtype=tl.int32)
    low_low = tl.zeros([TILE, TILE], dtype=tl.int32)
    for start in range(0, padded, CHANNELS):
        high_i = tl.load(limbs_i + start)
        middle_i = tl.load(limbs_i + plane_i + start)
        low_i = tl.load(limbs_i + 2 * plane_i + start)
        high_j = tl.trans(tl.load(limbs_j + start))
        middle_j = tl.trans(tl.load(limbs_j + plane_j + start))
        low_j = tl.trans(tl.load(limbs_j + 2 * plane_j + start))
        high_high = tl.dot(high_i, high_j, high_high, out_dtype=tl.int32)
        high_middle = tl.dot(high_i, middle_j, high_middle, out_dtype=tl.int32)
        middle_high = tl.dot(middle_i, high_j, middle_high, out_dtype=tl.int32)
        high_low = tl.dot(high_i, low_j, high_low, out_dtype=tl.int32)
        middle_middle = tl.dot(middle_i, middle_j, middle_middle, out_dtype=tl.int32)
        low_high = tl.dot(low_i, high_j, low_high, out_dtype=tl.int32)
        middle_low = tl.dot(middle_i, low_j, middle_low, out_dtype=tl.int32)
        low_middle = tl.dot(low_i, middle_j, low_middle, out_dtype=tl.int32)
        low_low = tl.dot(low_i, low_j, low_low, out_dtype=tl.int32)
    total = (high_high.to(tl.int64) << 8) + (high_middle + middle_high)
    total = (total << 8) + (high_low + middle_middle + low_high)
    total = (total << 8) + (middle_low + low_middle)
    total = (total << 8) + low_low
    return total.to(tl.float32) * 5.684341886080802e-14  # 2**-44, so this product is exact


@triton.jit
def tile_pointers(limbs, segment, row, count, padded, CHANNELS: tl.constexpr):
    """Point to the first channels of some rows; rows past the end repeat the last one."""
    begin = limbs + segment * count * padded
    channel = tl.arange(0, CHANNELS)
    return begin + tl.minimum(row, count - 1)[:, None].to(tl.int64) * padded + channel[None, :]


@triton.jit(do_not_specialize=["count"])
def _gram_kernel(
    limbs,
    gram,
    valid,
    plane,
    count,
    padded,
    HAS_VALID: tl.constexpr,
    TILE: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    tile_i, tile_j, segment = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    if tile_j < tile_i:
        return
    row_i = tile_i * TILE + tl.arange(0, TILE)
    row_j = tile_j * TILE + tl.arange(0, TILE)
    limbs_i = tile_pointers(limbs, segment, row_i, count, padded, CHANNELS)
    limbs_j = tile_pointers(limbs, segment, row_j, count, padded, CHANNELS)
    channels = padded
    if HAS_VALID:  # a tile of padding alone is zeros without a product
        real_i = tl.load(valid + segment * count + row_i, mask=row_i < count, other=0)
        real_j = tl.load(valid + segment * count + row_j, mask=row_j < count, other=0)
        channels = tl.where(tl.minimum(tl.max(real_i), tl.max(real_j)) > 0, padded, 0)
    cosine = cosine_tile(limbs_i, limbs_j, plane, plane, channels, TILE, CHANNELS)
    begin = gram + segment * count * count
    stored = (row_i < count)[:, None] & (row_j < count)[None, :]
    tl.store(begin + row_i[:, None].to(tl.int64) * count + row_j[None, :], cosine, mask=stored)
    if tile_j > tile_i:
        mirrored = tl.trans(cosine)
        stored = (row_j < count)[:, None] & (row_i < count)[None, :]
        tl.store(
            begin + row_j[:, None].to(tl.int64) * count + row_i[None, :], mirrored, mask=stored
        )
