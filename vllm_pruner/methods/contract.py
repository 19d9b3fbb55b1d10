"""Check that a method of another package returned a valid selection.

`tests/methods/test_contract.py` holds the built-in methods to the same rules. They are not checked
at run time: the indices are on the device, and reading them makes the host wait.
"""

from __future__ import annotations

import torch

from vllm_pruner.methods.base import Kept, Method, VisualTokens

__all__ = ["faults", "shape_fault"]


def shape_fault(method: Method, kept: Kept, tokens: VisualTokens, keep: int) -> str | None:
    """Return what is wrong with a selection's types and shapes, or None. No host sync.

    Args:
        method: the method that returned the selection.
        kept: the selection, not yet checked in any way.
        tokens: the inputs of the method.
        keep: tokens that each image must keep.
    """
    features = tokens.features
    allowed = _described(torch.int64, (len(features), keep), features.device)
    if (found := _description(kept.index)) != allowed:
        return f"returned {found}; allowed: indices {allowed}"
    if kept.rows is None:
        return None
    if not method.merges:
        return "returned rows; allowed: indices alone of a method that does not say that it merges"
    shape = (len(features), keep, features.shape[2])
    allowed = _described(features.dtype, shape, features.device)
    found = _description(kept.rows)
    return None if found == allowed else f"returned rows {found}; allowed: {allowed}"


def faults(method: Method, kept: Kept, total: int) -> dict[int, str]:
    """Return what is wrong with the selection's values, by the image's place in the batch.

    Waits for the device once.

    Args:
        method: the method that returned the selection.
        kept: a selection in which `shape_fault` found nothing wrong.
        total: tokens of each image.
    """
    index = kept.index
    outside = (index < 0) | (index >= total)
    least = 0 if method.repeats else 1
    unordered = index.diff(dim=1) < least
    broken = [outside.any(dim=1), unordered.any(dim=1), _not_finite(kept)]
    found: dict[int, str] = {}
    # The one wait for the device.
    for place, (is_outside, is_unordered, is_not_finite) in enumerate(
        torch.stack(broken, dim=1).tolist()
    ):
        if is_outside:
            value = index[place][outside[place]][0].item()
            found[place] = f"returned index {value}; allowed: 0 to {total - 1}"
        elif is_unordered:
            first = int(unordered[place].nonzero()[0])
            before, after = index[place, first : first + 2].tolist()
            found[place] = f"returned index {after} after {before}; allowed: ascending, each once"
        elif is_not_finite:
            found[place] = "returned rows with NaN or infinity; allowed: finite numbers"
    return found


def _not_finite(kept: Kept) -> torch.Tensor:
    """Return `[images]` bool: whether an image has merged rows that are not finite."""
    if kept.rows is None:
        return torch.zeros(len(kept.index), dtype=torch.bool, device=kept.index.device)
    return ~kept.rows.isfinite().flatten(1).all(dim=1)


def _description(value: object) -> str:
    if type(value) is not torch.Tensor:  # a subclass may override any operation
        return type(value).__name__
    if value.layout != torch.strided:
        return str(value.layout)
    return _described(value.dtype, tuple(value.shape), value.device)


def _described(dtype: torch.dtype, shape: tuple[int, ...], device: torch.device) -> str:
    return f"{str(dtype).removeprefix('torch.')} {list(shape)} on {device}"
