"""The most similar row of each row, without the matrix of similarities.

    best[i]  = max over the targets j allowed for i of cos(features[i], targets[j])
    index[i] = the first j that attains it

For one-shot dedup (`mask="before"`: drop the rows that resemble a more important one most), for the
first round of bipartite matching (`mask="opposite"`), and for assigning tokens to cluster centres
(`targets`). The cosine is that of `cosine_gram`, to the bit, so ties are ties and the lower j wins
on every device.

Source: `methods.md` section 6 (K5).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from vtprune_kernels._triton import register_op, use_triton
from vtprune_kernels.cosine_gram import MOST_CHANNELS, cosine_gram_reference
from vtprune_kernels.row_max_cosine_triton import row_max_cosine_triton
from vtprune_kernels.spec import EXACT, Spec, features

__all__ = ["SPECS", "row_max_cosine"]

_MASKS = ("all", "before", "opposite")


def row_max_cosine(
    features: torch.Tensor,
    targets: torch.Tensor | None = None,
    mask: str = "all",
    valid: torch.Tensor | None = None,
    valid_targets: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the highest cosine similarity of each row and where it is.

    Args:
        features: `[segments, N, D]`, any float dtype.
        targets: `[segments, M, D]`, same dtype; `features` themselves by default.
        mask: which targets j are allowed for a row i: "all" (itself included, if it is a target),
            "before" (j < i), "opposite" (i and j of different parity). Padding keeps its index.
        valid: `[segments, N]` bool, which rows exist (see `segments`).
        valid_targets: `[segments, M]` bool, which targets exist; `valid` if these are the rows.

    Returns:
        `[segments, N]` float32 and `[segments, N]` int64; minus infinity and -1 for padding and
        where no target is allowed.

    Raises:
        ValueError: an unknown mask, or targets that do not fit.
    """
    if mask not in _MASKS:
        raise ValueError(f"mask is {mask!r}; allowed: {', '.join(_MASKS)}")
    if targets is not None and (
        targets.shape[::2] != features.shape[::2] or targets.dtype != features.dtype
    ):
        raise ValueError(f"features {list(features.shape)}, targets {list(targets.shape)}")
    if features.shape[-1] <= MOST_CHANNELS and use_triton(features):
        return _row_max_cosine_op(features, targets, mask, valid, valid_targets)
    return row_max_cosine_reference(features, targets, mask, valid, valid_targets)


def row_max_cosine_reference(
    features: torch.Tensor,
    targets: torch.Tensor | None = None,
    mask: str = "all",
    valid: torch.Tensor | None = None,
    valid_targets: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Plain torch: the whole Gram of rows and targets, masked."""
    count = features.shape[1]
    both = features if targets is None else torch.cat([features, targets], dim=1)
    cosine = cosine_gram_reference(both)[:, :count, 0 if targets is None else count :]
    i = torch.arange(count, device=features.device).unsqueeze(1)
    j = torch.arange(cosine.shape[2], device=features.device)
    allowed = {"all": (i >= 0) & (j >= 0), "before": j < i, "opposite": (i + j) % 2 == 1}[mask]
    if valid is not None:
        allowed = allowed & valid.unsqueeze(2)
    exists = valid if targets is None else valid_targets
    if exists is not None:
        allowed = allowed & exists.unsqueeze(1)
    cosine = cosine.masked_fill(~allowed, float("-inf"))
    if cosine.shape[2] == 0:
        return cosine.new_full(cosine.shape[:2], float("-inf")), j.new_full(cosine.shape[:2], -1)
    best = cosine.amax(dim=2)
    index = cosine.argmax(dim=2)
    return best, index.masked_fill(best.isneginf(), -1)


def _row_max_cosine_fake(
    features: torch.Tensor,
    targets: torch.Tensor | None = None,
    mask: str = "all",
    valid: torch.Tensor | None = None,
    valid_targets: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    shape = features.shape[:2]
    return features.new_empty(shape, dtype=torch.float32), features.new_empty(
        shape, dtype=torch.int64
    )


_row_max_cosine_op = register_op(
    "row_max_cosine",
    row_max_cosine_triton,
    row_max_cosine_reference,
    _row_max_cosine_fake,
)


def _make_inputs(
    kind: str,
    size: int,
    dtype: torch.dtype,
    device: torch.device | str,
    large: bool = False,
    *,
    mask: str,
) -> dict[str, Any]:
    segments, width = (8, 1024) if large else (2, 40)
    return {"features": features(kind, (segments, size, width), dtype, device), "mask": mask}


SPECS = tuple(
    Spec(
        name="row_max_cosine",
        case=mask,
        op=row_max_cosine,
        reference=row_max_cosine_reference,
        launcher=row_max_cosine_triton,
        registered=_row_max_cosine_op,
        make_inputs=partial(_make_inputs, mask=mask),
        # The cosines are those of `cosine_gram`, to the bit.
        tolerance={torch.float32: EXACT, torch.float16: EXACT, torch.bfloat16: EXACT},
    )
    for mask in _MASKS
)
