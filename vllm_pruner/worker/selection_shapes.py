"""The sizes of selections that are captured in CUDA graphs.

A graph has fixed sizes. Where all images have equally many tokens, one graph holds exactly the
server's own budget for some number of images. A method that is `ragged` needs no exact fit: one
graph holds up to so many images of up to so many tokens, each with its own length and budget, so it
serves images of any size, and those that keep more because they show print.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vllm_pruner.worker.warm_up import SMALLEST

__all__ = [
    "EXACT_IMAGES",
    "MOST_TOKENS",
    "MOST_WORDS",
    "RAGGED_IMAGES",
    "Shape",
    "exact_shapes",
    "ragged_shapes",
]

EXACT_IMAGES = (1, 2, 3, 4, 6, 8)
RAGGED_IMAGES = (1, 2, 4, 8)
"""Images of the graphs. For more, the device is busy for longer than the host takes to launch: on
an H200 with 16 clients selection took 0.27 ms an image without graphs (2026-11-27)."""

MOST_TOKENS = 4096
"""Tokens of the largest image in a graph. The tower takes far longer for larger ones."""

_MOST_ROWS, _MOST_NUMBERS = 2 * MOST_TOKENS, 1 << 24
"""Tokens of all images of a graph for unequal ones, and numbers in what methods compare of them: at
most 128 MiB for similarities, twice that with `scope` and `triad`, and 32 MiB for features in
bfloat16. So two of LLaVA-NeXT's largest pictures fit, and one of 4,096 tokens of a model whose
merger has widened them."""

MOST_WORDS = 128
"""Tokens of the text that a method reads, for an image. Longer ones are read eagerly."""

_BUDGETS = 3
"""Budgets of each length: the server's own, twice and four times that."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a graph has room for."""

    images: int

    tokens: int
    """Tokens of an image; of the longest one if the graph is for unequal images."""

    keep: int
    """Tokens kept of an image; the most of any if the graph is for unequal images."""

    least: int | None = None
    """Fewest that an image keeps in a graph for unequal images; None if all are of `tokens` and
    keep `keep`."""

    def holds(self, images: int, tokens: int, keep: int, least: int) -> bool:
        """Return whether a selection fits.

        Args:
            images: number of images.
            tokens: tokens of the longest.
            keep: tokens kept of an image, at most.
            least: tokens kept of an image, at least.
        """
        if self.least is None:
            return images <= self.images and (tokens, keep, least) == (
                self.tokens,
                self.keep,
                self.keep,
            )
        fits = images <= self.images and tokens <= self.tokens and keep <= self.keep
        return fits and least >= self.least


def exact_shapes(tokens: int, keep: int) -> list[Shape]:
    """Return the shapes of images that all have `tokens` and keep `keep`, the smallest first."""
    return [Shape(images, tokens, keep) for images in EXACT_IMAGES]


def ragged_shapes(
    most: int, width: int, keep_count: Callable[[int], int], *, of_one_size: bool
) -> list[Shape]:
    """Return the shapes of unequal images, those that take the least work first.

    Args:
        most: visual tokens of the largest image.
        width: numbers in a token's features.
        keep_count: `keep_count(tokens)`, the server's own budget of an image.
        of_one_size: whether all images have that many; only their budgets differ then.
    """
    shapes, rows = [], min(_MOST_ROWS, _MOST_NUMBERS // width)
    for tokens in [most] if of_one_size else _lengths(min(most, MOST_TOKENS)):
        # Images that are selected together differ by at most a factor of two (`together`),
        # those of the smallest class by any.
        shortest = tokens if of_one_size else 1 if tokens == SMALLEST else tokens // 2
        least = max(1, keep_count(shortest) // 2)  # newlines take up to half of a budget
        budgets = sorted({min(tokens, keep_count(tokens) << step) for step in range(_BUDGETS)})
        for images in RAGGED_IMAGES:
            if images == 1 or images * tokens <= rows:
                shapes += [Shape(images, tokens, keep, least) for keep in budgets]
    return shapes


def _lengths(most: int) -> list[int]:
    """Return lengths of which each is a half or a third more than the one before: powers of two,
    and what lies halfway between."""
    lengths = [SMALLEST]
    while lengths[-1] < most:
        last = lengths[-1]
        lengths.append(last * 3 // 2 if last & (last - 1) == 0 else last * 4 // 3)
    return lengths
