"""What makes the host wait for a GPU, and what a GPU does not take: by operator and arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pretend_tensor import OnCard, tensors_in

__all__ = ["READS", "refuse_mixes", "wait_of"]

_WAITS = {
    *("item", "_local_scalar_dense", "is_nonzero", "equal", "allclose", "nonzero", "bincount"),
    *("masked_select", "unique_consecutive", "unique_dim", "_unique", "_unique2", "argwhere"),
}
"""Operators that read on the host a number, or how large their result is."""

READS = {"tolist", "numpy", "__array__"}
"""Of a tensor: they read it without an operator."""


def refuse_mixes(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Raise what CUDA raises for a tensor of the host among those of the card. It takes a number,
    copies, and indices, all of which `wait_of` may know.

    Raises:
        RuntimeError: an operator other than these got one.
    """
    if name in ("copy_", "_to_copy"):
        return
    given = args[0:1] if name in ("index", "index_put", "index_put_") else (args, kwargs)
    on_host = [it for it in tensors_in(given) if type(it) is torch.Tensor and it.dim()]
    if on_host:
        raise RuntimeError(
            f"Expected all tensors to be on the same device: {name} got one of the host, "
            f"{[*on_host[0].shape]}"
        )


def wait_of(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Return why the host waits in an operator, or nothing."""
    if name in _WAITS:
        return name
    if name == "copy_":
        if not isinstance(args[0], OnCard):
            return "a copy to the host"
        return "" if isinstance(args[1], OnCard) else "a copy from the host"
    if name in ("index", "index_put", "index_put_"):
        return _wait_of_index(name, args)
    if name == "repeat_interleave" and kwargs.get("output_size") is None:
        return name
    return name if name == "where" and len(args) == 1 else ""


def _wait_of_index(name: str, args: Sequence[Any]) -> str:
    indices = [index for index in args[1] if index is not None]
    if any(not isinstance(index, OnCard) for index in indices):
        return "an index of the host"
    # One number behind a mask is filled in without asking where.
    filled = name != "index" and args[2].numel() == 1
    masked = any(index.dtype in (torch.bool, torch.uint8) for index in indices)
    return "a mask as an index" if masked and not filled else ""
