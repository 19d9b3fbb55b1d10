"""How many of an image's tokens show nothing but plain cells."""

from __future__ import annotations

from math import isqrt

import numpy as np

from vllm_pruner.picture import GRID, Picture

__all__ = ["plain_share"]


def plain_share(picture: Picture, tokens: int) -> float:
    """Return the share of an image's tokens that lie within plain cells.

    A token larger than a cell lies in several, and all of them have to be plain; so less of a small
    picture counts than its plain cells cover. The tokens are taken for as many rows as columns, of
    the picture's own shape; where they are not, a token is longer than wide, or wider than long,
    and the share is that of squares of its area.

    Args:
        picture: what the image shows.
        tokens: its visual tokens, unpruned.
    """
    if not picture.cells:
        return 0.0
    cells = np.unpackbits(np.frombuffer(picture.cells, np.uint8)).reshape(GRID, GRID)
    busy = np.zeros((GRID + 1, GRID + 1), np.int64)  # in all cells above and to the left
    busy[1:, 1:] = (1 - cells.astype(np.int64)).cumsum(axis=0).cumsum(axis=1)
    side = max(1, isqrt(tokens))
    edges = np.arange(side + 1) * GRID
    first, last = edges[:-1] // side, -(-edges[1:] // side)
    within = busy[last] - busy[first]
    within = within[:, last] - within[:, first]
    return int(np.count_nonzero(within == 0)) / side**2
