"""Training batches of the demo Qwen2.5-VL: the pictures of a batch have one shape, drawn per batch.

A scene's owners and labels are those of merged tokens, 28 pixels wide; its patches are in the order
of Qwen's processor, the four of a token together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from batches import LABEL_WORDS, PATCH, Batch, owners, patch_labels, seen, sequence
from numpy.typing import NDArray
from vocabulary import CLOSING
from vtprune_evaluate.ragged import TOKEN, ZOOM, draw_ragged, enlarged, grid_of

MERGE = TOKEN // PATCH


@dataclass(slots=True)
class RaggedBatch(Batch):
    """`patches` [B, 4 N, 588] of N tokens, bytes; the rest as in `Batch`, per token."""

    grid: tuple[int, int]
    """Rows and columns of tokens of every picture."""


def to_merged_patches(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Patches [4 N, 588] of an image [height, width, 3]: token by token, patch by patch within a
    token, channel first within a patch."""
    rows, columns = (length // TOKEN for length in pixels.shape[:2])
    cut = pixels.reshape(rows, MERGE, PATCH, columns, MERGE, PATCH, 3)
    return cut.transpose(0, 3, 1, 4, 6, 2, 5).reshape(-1, 3 * PATCH * PATCH)


def make_ragged_batch(size: int, *seed: int) -> RaggedBatch:
    """The batch for a seed, which also draws its shape: scene i is drawn from `(*seed, i)`."""
    grid = grid_of(*seed)
    scenes = [draw_ragged(*seed, i, grid=grid) for i in range(size)]
    large = [enlarged(scene, grid) for scene in scenes]
    owner = [owners(of_pixels, TOKEN) for _, of_pixels in large]
    labels = [
        patch_labels(scene, of, grid[1], TOKEN / ZOOM)
        for scene, of in zip(scenes, owner, strict=True)
    ]
    texts = [sequence(scene, *seed, i, closing=CLOSING) for i, scene in enumerate(scenes)]
    return RaggedBatch(
        torch.from_numpy(np.stack([to_merged_patches(pixels) for pixels, _ in large])),
        {g: torch.from_numpy(np.stack([label[g] for label in labels])) for g in LABEL_WORDS},
        torch.from_numpy(np.stack(owner)),
        torch.from_numpy(np.stack([seen(scene) for scene in scenes])),
        torch.tensor([tokens for tokens, _, _ in texts]),
        torch.tensor([targets for _, targets, _ in texts]),
        torch.tensor([about for _, _, about in texts]),
        grid,
    )
