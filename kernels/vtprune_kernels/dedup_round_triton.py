"""One round of `dedup` in Triton: the best matches of a, their order, the next list.

A row of a is one thread's, `BLOCK` rows at a time. Its list of neighbours comes best first, so its
best match is the first that is in b. The rows that have none queue for a look through all of b.

A match is ranked by counting those above it, three instructions for two (SASS, sm_90): comparisons
that give 1.0 or 0.0, and one addition, of their bits as integers. That is quadratic, so a longer a
is ranked block by block, and each match then finds its place among the other blocks by bisection.

What threads pass to each other goes through global memory, which stays in the L1 cache, between
barriers. The list and the sides are read from one place and written to another.

The loop over matches carries a tile and reduces it once, after the loop: Triton 3.6 (an H200's with
vLLM 0.32) cannot compile a reduction inside a loop whose running result is used more than once
afterwards (`OptimizeThreadLocality`, seen 2026-11-27).
"""

# Triton's bodies carry no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from vtprune_kernels._triton import tl, triton
from vtprune_kernels.ordering import float_of_ordered_bits, ordered_bits

__all__ = ["dedup_round"]


@triton.jit
def dedup_round(
    gram, near_rows, near_values, now, side, following, next_side, values, ordered_values,
    ordered_rows, queue, rows, length, removed, BLOCK: tl.constexpr,
    HALVINGS: tl.constexpr, NEAREST: tl.constexpr,
):  # fmt: skip
    """Write the next list and the side of each of its rows."""
    count_a = (length + 1) // 2
    count_b = length // 2
    lane = tl.arange(0, BLOCK)
    for start in range(0, count_a, BLOCK):
        i = start + lane
        row = tl.load(now + 2 * i, mask=i < count_a, other=0)
        row_b = tl.load(now + 2 * i + 1, mask=i < count_b, other=0)
        best = _best_matches(
            gram, near_rows, near_values, now, side, values + BLOCK, queue, rows, row, i < count_a,
            count_b, NEAREST,
        )  # fmt: skip
        tl.store(values + lane, best)
        tl.debug_barrier()
        rank = _rank(values, best, tl.minimum(count_a - start, BLOCK), BLOCK)
        if count_a <= BLOCK:
            _place(following, next_side, rank - removed, row, i < count_a)
        else:
            # Behind them -inf, to the end of the block.
            tl.store(ordered_values + start + tl.where(i < count_a, rank, lane), best)
            tl.store(ordered_rows + start + rank, row, mask=i < count_a)
        _place(following, next_side, count_a - removed + i, row_b, i < count_b)
        tl.debug_barrier()
    if count_a > BLOCK:
        for start in range(0, count_a, BLOCK):
            i = start + lane
            value = tl.load(ordered_values + i)
            row = tl.load(ordered_rows + i, mask=i < count_a, other=0)
            rank = lane
            for other in range(0, count_a, BLOCK):
                if other != start:
                    rank += _number_before(ordered_values, value, other, start, BLOCK, HALVINGS)
            _place(following, next_side, rank - removed, row, i < count_a)
        tl.debug_barrier()


@triton.jit
def _place(following, next_side, position, row, exists):
    """Write rows to their positions in the next list, and which of them are in b.

    Positions below 0 are those of removed rows, which are in b no more.
    """
    stays = position >= 0
    tl.store(following + position, row, mask=exists & stays)
    tl.store(next_side + row, (stays & (position % 2 == 1)).to(tl.uint8), mask=exists)


@triton.jit
def _best_matches(
    gram, near_rows, near_values, now, side, found, queue, rows, row, exists, count_b,
    NEAREST: tl.constexpr,
):  # fmt: skip
    """Similarity of each row of a to its best match in b; -inf where `exists` is false."""
    best = _best_listed(near_rows, near_values, side, row, NEAREST)
    missing = exists & (best == -float("inf"))
    waiting = tl.sum(missing.to(tl.int32), axis=0)
    if waiting > 0:
        place = tl.cumsum(missing.to(tl.int32), axis=0) - 1
        tl.store(queue + place, row, mask=missing)
        tl.debug_barrier()
        _look_through_b(gram, now, found, queue, rows, waiting, count_b)
        tl.debug_barrier()
        best = tl.where(missing, tl.load(found + 2 * place, mask=missing, other=0.0), best)
    return tl.where(exists, best, -float("inf"))


@triton.jit
def _which_are_b(side, numbers):
    """Return which of four rows are in b, two in each of two numbers: in bits 0, 1, 4 and 5."""
    first, second = tl.split(numbers)
    are_b = tl.load(side + (first & 0xFFFF)).to(tl.int32)
    are_b |= tl.load(side + (first >> 16)).to(tl.int32) << 1
    are_b |= tl.load(side + (second & 0xFFFF)).to(tl.int32) << 4
    return are_b | tl.load(side + (second >> 16)).to(tl.int32) << 5


@triton.jit
def _best_listed(near_rows, near_values, side, row, NEAREST: tl.constexpr):
    """Similarity of the first of a row's neighbours that is in b; -inf if none is."""
    hits = tl.zeros_like(row)
    four = tl.arange(0, 4)[None, :]
    for eight in tl.static_range(NEAREST // 8):
        at = near_rows + row[:, None] * (NEAREST // 2) + 4 * eight + four
        # One load of 16 bytes, two rows in each of four numbers.
        even, odd = tl.split(tl.reshape(tl.load(at), [row.shape[0], 2, 2]))
        hits |= _which_are_b(side, even) << (8 * eight)
        hits |= _which_are_b(side, odd) << (8 * eight + 2)
    # The number of the lowest bit is the exponent of the float that this bit is alone.
    lowest = (hits & -hits).to(tl.float32).to(tl.int32, bitcast=True)
    first = ((lowest >> 23) & 0xFF) - 127
    return tl.load(near_values + row * NEAREST + first, mask=hits != 0, other=-float("inf"))


@triton.jit
def _look_through_b(gram, now, found, queue, rows, waiting, count_b):
    """Best match of each row of the queue among all of b: a warp a row, 32 of b at a time. Past its
    end the last of b stands in, which changes no maximum and needs no mask."""
    for start in range(0, waiting, 8):
        at = start + tl.arange(0, 8)
        row = tl.load(queue + at, mask=at < waiting, other=0)
        of_row = gram + row.to(tl.int64)[None, :] * rows
        best = tl.full([32, 8], -float("inf"), dtype=tl.float32)
        for start_b in range(0, count_b, 128):
            for part in tl.static_range(0, 128, 32):
                j = tl.minimum(start_b + part + tl.arange(0, 32), count_b - 1)
                row_b = tl.load(now + 2 * j + 1)
                value = tl.load(
                    of_row + row_b[:, None], mask=(at < waiting)[None, :], other=-float("inf")
                )
                best = tl.maximum(best, value)
        # The two zeros are equal as matches, and an integer's maximum is one instruction a warp.
        highest = float_of_ordered_bits(tl.max(ordered_bits(best), axis=0))
        # By every lane of the warp, and apart: together, the compiler would first pass them around.
        write = tl.zeros([32, 1], dtype=tl.int32) + 2 * at[None, :]
        tl.store(
            found + write, tl.broadcast_to(highest[None, :], (32, 8)), mask=(at < waiting)[None, :]
        )


@triton.jit
def _rank(values, value, count, BLOCK: tl.constexpr):
    """Place of each of `count` values among them, the highest first, ties to the earlier.

    Eight others at a time are compared. Where all eight are earlier, equals count too: what is
    above the next lower number is at least this one.
    """
    tl.static_assert(BLOCK <= 511)  # see `_number_of_ones`
    i = tl.arange(0, BLOCK)
    eight = tl.arange(0, 8)
    lower = _next_lower(value)
    above = tl.zeros([8, BLOCK], dtype=tl.int32)
    others = values + eight
    for block in range(0, (count + 31) // 32):
        for part in tl.static_range(0, 32, 8):
            other = tl.load(others + part)
            bound = tl.where(block <= (i - (part + 8)) >> 5, lower, value)
            # An integer adder takes three numbers at once, one of floats takes two.
            above += (other[:, None] > bound[None, :]).to(tl.float32).to(tl.int32, bitcast=True)
        others += 32
    total = tl.sum(above, axis=0)
    # Of its own eight the equals that are earlier.
    for part in tl.static_range(0, 8, 4):
        k = part + tl.arange(0, 4)
        own = tl.load(values + (i // 8 * 8)[:, None] + k[None, :])
        earlier = tl.where(k[None, :] < (i % 8)[:, None], 0x3F800000, 0)
        equal = (own == value[:, None]).to(tl.float32).to(tl.int32, bitcast=True)
        total += tl.sum(equal & earlier, axis=1)
    return _number_of_ones(total)


@triton.jit
def _number_of_ones(total):
    """How many times the bits of 1.0 were added up as integers, up to 511.

    They are 127 * 2**23, so the highest nine bits are the number times 127, modulo 512, and 383
    times 127 is 1.
    """
    return ((total >> 23) * 383) & 511


@triton.jit
def _next_lower(value):
    """The highest float32 below a finite one."""
    bits = value.to(tl.int32, bitcast=True)
    bits = tl.where(value == 0.0, -2147483647, tl.where(bits > 0, bits - 1, bits + 1))
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def _number_before(ordered, value, block, own, BLOCK: tl.constexpr, HALVINGS: tl.constexpr):
    """How many of another block's ordered values come before each value, by bisection."""
    bound = tl.where(block < own, _next_lower(value), value)  # as in `_rank`
    number = tl.zeros([BLOCK], dtype=tl.int32)
    for k in tl.static_range(1, HALVINGS + 2):  # one more: the answer may be all
        half = BLOCK >> k if k <= HALVINGS else 1
        probe = tl.load(ordered + (block + number + (half - 1)))
        number += tl.where(probe > bound, half, 0)
    return number
