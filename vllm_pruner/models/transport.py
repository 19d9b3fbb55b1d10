"""Settings on their way from the processor to the model, as a tensor.

vLLM's multimodal fields carry tensors. The field stays on the CPU (`keep_on_cpu`), so reading it
does not make the model wait for the device.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from vllm_pruner.config import PruneConfig

__all__ = ["from_tensors", "to_tensor"]


def to_tensor(config: PruneConfig) -> torch.Tensor:
    """Return the canonical text of `config` as `[length]` uint8."""
    return torch.frombuffer(bytearray(config.canonical().encode()), dtype=torch.uint8)


def from_tensors(fields: Iterable[torch.Tensor]) -> list[PruneConfig]:
    """Return the settings of each image, from the rows that vLLM batched."""
    return [PruneConfig.from_canonical(bytes(field.tolist()).decode()) for field in fields]
