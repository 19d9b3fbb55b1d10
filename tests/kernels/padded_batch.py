"""A padded batch of images of any resolution, with NaN or infinity wherever a batch has padding.

Row by row it has to give what each image gives alone, indices, copies and cosines to the bit: each
`test_<operator>.py` says so of its own.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from vtprune_kernels.cosine_gram import cosine_gram_reference
from vtprune_kernels.spec import features

LENGTHS, LONGEST, WIDTH, HEADS = (20, 1, 33, 0, 8), 33, 24, 2
KEEP = 6
COUNTS = torch.tensor([5, 1, 6, 3, 6], dtype=torch.int32)
VALID = torch.arange(LONGEST) < torch.tensor(LENGTHS)[:, None]
"""`[images, LONGEST]`."""

WAYS = [
    pytest.param(way, garbage, id=f"{way}-{garbage}", marks=marks)
    for way, marks in (("reference", ()), ("launcher", pytest.mark.slow))
    for garbage in (math.nan, math.inf)
]


def padded(images: list[torch.Tensor], garbage: float) -> torch.Tensor:
    """`[images, LONGEST, ...]` of images of `[n, ...]`."""
    batch = torch.full((len(images), LONGEST, *images[0].shape[1:]), garbage)
    for place, image in zip(batch, images, strict=True):
        place[: len(image)] = image
    return batch


def padded_grams(grams: list[torch.Tensor], garbage: float) -> torch.Tensor:
    batch = torch.full((len(grams), LONGEST, LONGEST), garbage)
    for place, gram in zip(batch, grams, strict=True):
        place[: len(gram), : len(gram)] = gram
    return batch


def drawn(width: int = WIDTH, seed: int = 0) -> list[torch.Tensor]:
    return [
        features("clustered", (1, n, width), torch.float32, "cpu", seed + i)[0]
        for i, n in enumerate(LENGTHS)
    ]


def grams() -> list[torch.Tensor]:
    return [cosine_gram_reference(image[None])[0] for image in drawn()]


def kept_alone(run: Any, image: int, *arguments: Any, **options: Any) -> list[int]:
    """What one image keeps, with -1 up to the width of the batch's result."""
    number = min(KEEP, LENGTHS[image], int(COUNTS[image]))
    alone = run(*arguments, number, **options)[0].tolist() if number else []
    return [*alone, *[-1] * (KEEP - number)]
