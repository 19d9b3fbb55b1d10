"""What was picked from a ranking, in raster order: its first entries and some of the later ones.

    out[s] = ascending  order[s, :first] and order[s, first + places[s]]

VisPruner keeps its most important tokens and what remains of the others, in the order of the image;
in torch that is a gather, a concatenation and a sort.
"""

from __future__ import annotations

from typing import Any

import torch

from vtprune_kernels._triton import register_op, use_triton
from vtprune_kernels.picked_sorted_triton import picked_sorted_triton
from vtprune_kernels.segments import ABSENT
from vtprune_kernels.spec import EXACT, Spec

__all__ = ["SPECS", "picked_sorted"]


def picked_sorted(
    order: torch.Tensor,
    first: int,
    places: torch.Tensor,
    keep: int,
    firsts: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the indices that are picked, ascending.

    Args:
        order: `[segments, N]` int64, a permutation of 0..N-1 in each row.
        first: how many entries at its beginning are picked, 0 to N.
        places: `[segments, L]` int64, which of the entries after those, counted from 0, each once;
            -1 for none; not checked on a GPU.
        keep: width of the result, 0 to `first` + L.
        firsts: `[segments]` integers, 0 to `first`: how many entries at the beginning are picked
            of each segment, if not `first` of all.

    Returns:
        `[segments, keep]` int64, ascending within a segment, with -1 at the end where fewer are
        picked; the lowest ones where more are.

    Raises:
        ValueError: `first` or `keep` is out of range.
    """
    if not 0 <= first <= order.shape[1]:
        raise ValueError(f"first is {first}; allowed: 0 to {order.shape[1]}")
    if not 0 <= keep <= first + places.shape[1]:
        raise ValueError(f"keep is {keep}; allowed: 0 to {first + places.shape[1]}")
    if use_triton(order, places):
        return _picked_sorted_op(order, first, places, keep, firsts)
    return picked_sorted_reference(order, first, places, keep, firsts)


def picked_sorted_reference(
    order: torch.Tensor,
    first: int,
    places: torch.Tensor,
    keep: int,
    firsts: torch.Tensor | None = None,
) -> torch.Tensor:
    """Plain torch: what is absent counts as N, which sorts last."""
    if firsts is None:
        begin = torch.full((len(order), 1), first, device=order.device)
    else:
        begin = firsts.long().unsqueeze(1)
    absent = order.shape[1]
    place = torch.arange(first, device=order.device)
    head = order[:, :first].where(place < begin, absent)
    later = (begin + places).clamp(0, max(0, absent - 1))
    tail = order.gather(1, later).where(places >= 0, absent)
    picked = torch.cat([head, tail], dim=1).sort(dim=1).values[:, :keep]
    return picked.masked_fill(picked == absent, ABSENT)


def _picked_sorted_fake(
    order: torch.Tensor,
    first: int,
    places: torch.Tensor,
    keep: int,
    firsts: torch.Tensor | None = None,
) -> torch.Tensor:
    return order.new_empty((order.shape[0], keep))


_picked_sorted_op = register_op(
    "picked_sorted",
    picked_sorted_triton,
    picked_sorted_reference,
    _picked_sorted_fake,
)


def _make_inputs(
    kind: str, size: int, dtype: torch.dtype, device: torch.device | str, large: bool = False
) -> dict[str, Any]:
    """Kind and dtype change nothing: there is only one of each."""
    segments, generator = 8 if large else 3, torch.Generator().manual_seed(size)
    drawn = torch.rand((2, segments, size), generator=generator).argsort(dim=2)
    first = size // 18 if large else size // 4
    places = drawn[1][drawn[1] < size - first].view(segments, size - first)
    places = places[:, : size // 18 if large else min(size - first, 1 + size // 9)].contiguous()
    keep = first + places.shape[1]
    return {
        "order": drawn[0].to(device),
        "first": first,
        "places": places.to(device),
        "keep": keep,
    }


SPECS = (
    Spec(
        name="picked_sorted",
        op=picked_sorted,
        reference=picked_sorted_reference,
        launcher=picked_sorted_triton,
        registered=_picked_sorted_op,
        make_inputs=_make_inputs,
        # Comparisons of integers.
        tolerance={torch.float32: EXACT, torch.float16: EXACT, torch.bfloat16: EXACT},
    ),
)
