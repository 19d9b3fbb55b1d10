"""Pixels: all that is not empty, then what looks least like its neighbours, chosen before the tower
runs.

Ours, after PixelPrune (Wang et al., arXiv 2604.00886, 2026; its code, Apache-2.0, was not used),
which drops patches that predictive coding foretells exactly before a vision tower encodes them. A
token's pixels x are those of all its patches, as the image processor made them:

    surprise(t) = min over the token to the left and the one above of max |x_t - x_neighbour|
    contrast(t) = max over the colours of max x_t - min x_t
    kept        = the T tokens of highest surprise, those of a contrast above `PLAIN` before others

The first token has neither neighbour and is always kept. What is dropped is of one colour and looks
like a neighbour, which is kept or looks like one in turn: margins, backgrounds, bars. Without the
contrast a third of what goes of a table would be pieces of its rules, each of which is its
neighbour's twin (`tests/test_picture.py`). The tower encodes the kept tokens alone, at their places
in the picture, so its time falls as the decoder's does; all other methods choose among its output.

**It finds what is empty, not what is important**: of a photograph it keeps texture. The floor
`content` leaves it only what is plain.

Deviations from the paper: that drops whatever is within a threshold of its prediction; here the
budget is given, and the threshold is the surprise of the T-th token. That predicts from one
neighbour; here the more similar one counts. And what shows something goes last, even twice.

An image of several grids is ranked as one list, each token beside the neighbours in its own grid.

Equally surprising tokens, such as those of an empty margin, go to the lower index.
"""

from __future__ import annotations

import torch
from vtprune_kernels import top_k_sorted

from vllm_pruner.methods.base import Method, Need, Options, VisualTokens

__all__ = ["PIXELS", "PLAIN", "PLAIN_BYTES", "contrast", "surprise", "worth"]

PLAIN, PLAIN_BYTES = 0.1, 12
"""Most contrast of a token of one colour: in normalised floats, where it is 6 to 13 of 255, as
models divide by 0.22 to 0.5; and in bytes, as `picture` has it."""

_COLOURS = 3


def surprise(pixels: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Return `[images, N]` float32; see the module.

    Args:
        pixels: `[images, N, values]`, in raster order: normalised floats of any dtype, or bytes.
        grid: rows and columns of tokens.
    """
    if not pixels.numel():
        return pixels.new_zeros(pixels.shape[:2], dtype=torch.float32)
    rows = pixels.unflatten(1, grid)
    least = torch.full(rows.shape[:3], torch.inf, dtype=torch.float32, device=pixels.device)
    for axis, length in enumerate(grid, start=1):
        ahead, behind = rows.narrow(axis, 1, length - 1), rows.narrow(axis, 0, length - 1)
        # Not their difference, which bytes would wrap around.
        unlike = (torch.maximum(ahead, behind) - torch.minimum(ahead, behind)).amax(dim=3).float()
        later = least.narrow(axis, 1, length - 1)
        later.copy_(torch.minimum(later, unlike))
    return least.flatten(1)


def contrast(pixels: torch.Tensor) -> torch.Tensor:
    """Return `[images, N]`, in the pixels' dtype; see the module.

    Args:
        pixels: `[images, N, values]`, those of a colour together; of one colour, unless there can
            be three.
    """
    if not pixels.numel():
        return pixels.new_zeros(pixels.shape[:2])
    colours = _COLOURS if pixels.shape[2] % _COLOURS == 0 else 1
    each = pixels.unflatten(2, (colours, -1))
    most: torch.Tensor = (each.amax(dim=3) - each.amin(dim=3)).amax(dim=2)
    return most


def worth(pixels: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Return `[images, N]` float32, by which tokens are ranked; see the module.

    Args:
        pixels: as for `contrast`.
        grid: as for `surprise`.
    """
    found = surprise(pixels, grid)
    most = PLAIN if pixels.is_floating_point() else PLAIN_BYTES
    is_plain = (contrast(pixels) <= most) & found.isfinite()  # all but the first token
    return torch.where(is_plain, -1 / (1 + found), found)  # below 0, and in their order


def select(tokens: VisualTokens, keep: int, options: Options) -> torch.Tensor:
    """Return `[images, keep]` indices; see `Method.select`."""
    if tokens.grid is not None:
        return top_k_sorted(worth(tokens.features, tokens.grid), keep)
    parts = tokens.features.split([rows * columns for rows, columns in tokens.grids], dim=1)
    found = [worth(part, grid) for part, grid in zip(parts, tokens.grids, strict=True)]
    return top_k_sorted(torch.cat(found, dim=1), keep)


PIXELS = Method("pixels", select, needs=frozenset({Need.GRID}), before_tower=True)
