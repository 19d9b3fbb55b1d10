"""What is known of any tower before it runs: its device and dtype, and the columns of its rows."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import torch
from torch import nn
from vllm.config import get_current_vllm_config

from vllm_pruner.methods.base import Need
from vllm_pruner.tower import FEATURES, Columns

__all__ = ["columns_by_size", "columns_of", "device_of", "is_left_out", "parameter_of"]

Size = TypeVar("Size", bound=Hashable)


def is_left_out(tower: nn.Module) -> bool:
    """Return whether vLLM has loaded nothing of a tower, because prompts may have no image and no
    video."""
    return next(tower.parameters(), None) is None


def parameter_of(tower: nn.Module) -> torch.Tensor:
    """Return a tensor with the tower's device and dtype; of a tower that is left out, those that
    the rest of the model is being built with."""
    return torch.empty(0) if is_left_out(tower) else next(tower.parameters())


def device_of(tower: nn.Module) -> torch.device:
    """Return the device that a tower runs on: while vLLM builds its model without memory
    (`--load-format ipc_cache`), the one that the model is built for."""
    device = parameter_of(tower).device
    if device.type != "meta":
        return device
    built_for = get_current_vllm_config().device_config.device
    return torch.empty(0, device=built_for).device  # with its number


def columns_of(
    tower: nn.Module, width: int, head_size: int, needs: frozenset[Need]
) -> dict[str, tuple[int, torch.dtype]]:
    """Return width and dtype by column; see `Tower.columns`.

    Args:
        tower: the module whose dtype the features have.
        width: width of the features.
        head_size: width of a key.
        needs: the other columns.
    """
    columns = dict.fromkeys((FEATURES, *sorted(needs)), (0, torch.float32))
    columns[FEATURES] = (width, parameter_of(tower).dtype)
    if Need.KEYS in needs:
        columns[Need.KEYS] = (head_size, torch.float32)
    return columns


def columns_by_size(
    pieces: Sequence[torch.Tensor],
    sizes: Sequence[Size],
    encode: Callable[[list[torch.Tensor], Size], Columns],
) -> Columns:
    """Return the columns of slices one after the other, encoded together where they have one size.

    Args:
        pieces: the pixels of each slice.
        sizes: of each slice.
        encode: returns the columns `[slices, tokens, ...]` of slices of one size.
    """
    parts: list[Columns] = [{}] * len(sizes)
    for size in dict.fromkeys(sizes):
        places = [place for place, each in enumerate(sizes) if each == size]
        made = encode([pieces[place] for place in places], size)
        for number, place in enumerate(places):
            parts[place] = {name: rows[number] for name, rows in made.items()}
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
