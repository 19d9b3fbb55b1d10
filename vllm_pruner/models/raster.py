"""The patches of an image's crops as one sequence, in the decoder's order and without padding.

The tower attends within a crop, so its importance says which tokens of that crop matter, and adds
up to about the same in an empty corner as in the middle of the picture. To rank the tokens of all
crops in one list, each is divided by the mean over its crop's patches: 1 is what a token of any
crop has on average. Padding is no patch: it is never ranked and enters no mean.
"""

from __future__ import annotations

import torch
from vtprune_kernels import gather_rows

from vllm_pruner.models.crop_layout import CropLayout

__all__ = ["arrange"]


def arrange(
    features: torch.Tensor, importance: torch.Tensor, layout: CropLayout
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return features and importance of the patches of images that have the same layout.

    Args:
        features: `[images * crops, N, D]`, image by image.
        importance: `[images * crops, N]`.
        layout: of each of the images.

    Returns:
        `[images, patches, D]` and `[images, patches]`; what came in where an image is one crop.
    """
    if layout.crops == 1:
        return features, importance
    sources = layout.sources(features.device)
    is_patch = torch.zeros(layout.crops * layout.base, dtype=torch.bool, device=features.device)
    is_patch = is_patch.index_fill_(0, sources, True).view(layout.crops, layout.base)
    importance = importance.unflatten(0, (-1, layout.crops))
    total = importance.where(is_patch, 0.0).sum(dim=2, keepdim=True)
    mean = total / is_patch.sum(dim=1, keepdim=True).clamp_min(1)
    importance = importance / mean.clamp_min(torch.finfo(importance.dtype).tiny)
    features = features.unflatten(0, (-1, layout.crops)).flatten(1, 2)
    features, importance = gather_rows(
        [features, importance.flatten(1)], sources.expand(len(features), -1)
    )
    return features, importance
