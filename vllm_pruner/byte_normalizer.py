"""Normalise pixels on the device, so that they travel to the engine as bytes.

HF's image processors resize and crop bytes and then convert them to float, four times as much to
copy through caches and two processes. What remains is one subtraction and one division per channel,
done here in float32 and in the order of `transformers` 5
(`TorchvisionBackend.rescale_and_normalize`), so that the bits are the same on every device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

__all__ = ["ByteNormalizer", "normalises"]


class ByteNormalizer(torch.nn.Module):
    """Rescales and normalises bytes as HF's image processor does.

    A module, because vLLM's sleep of level 2 gives a model its buffers back and no other tensor.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, image_processor: Any, dtype: Any, device: torch.device) -> None:
        """Read mean and standard deviation.

        Args:
            image_processor: HF's image processor, for which `normalises` is true.
            dtype: the model's dtype, of the result.
            device: the device of the bytes.
        """
        super().__init__()
        self._dtype = dtype
        scale = 1.0 / image_processor.rescale_factor
        mean, std = (
            (torch.tensor(channels, dtype=torch.float32, device="cpu") * scale).view(-1, 1, 1)
            for channels in (image_processor.image_mean, image_processor.image_std)
        )
        self.register_buffer("mean", mean.to(device), persistent=False)
        self.register_buffer("std", std.to(device), persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return `[..., 3, height, width]` in the model's dtype, as the tower takes it.

        Args:
            pixels: `[..., height, width, 3]` uint8, channels last.
        """
        planes = pixels.movedim(-1, -3).to(torch.float32, memory_format=torch.contiguous_format)
        return planes.sub_(self.mean).div_(self.std).to(self._dtype)

    def each(self, images: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return `[crops, 3, height, width]` of images `[crops, height, width, 3]` whose crops have
        one size."""
        return list(self(torch.cat(list(images))).split([len(image) for image in images]))


def normalises(image_processor: Any) -> bool:
    """Return whether HF's image processor ends with the step that `ByteNormalizer` does."""
    from transformers.image_processing_backends import TorchvisionBackend

    return (
        isinstance(image_processor, TorchvisionBackend)
        and bool(image_processor.do_rescale and image_processor.do_normalize)
        and bool(image_processor.do_convert_rgb)
    )
