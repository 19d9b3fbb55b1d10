"""Pixels on their way to the tower as bytes, and what HF's image processor would have made of them.

HF's processors resize and crop bytes, and then make floats of them: four times as much to copy
into caches and through two processes. What is left to do is one subtraction and one division of
each channel, here in the same order and in float32 as `transformers` 5 does it
(`TorchvisionBackend.rescale_and_normalize`), so that the bits are the same on every device.
"""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["ByteNormalizer", "normalises"]


class ByteNormalizer:
    """Makes of bytes what HF's image processor makes of them."""

    def __init__(self, image_processor: Any, dtype: Any, device: torch.device) -> None:
        """Read mean and deviation.

        Args:
            image_processor: HF's.
            dtype: the model's.
            device: where bytes will be.
        """
        scale = 1.0 / image_processor.rescale_factor
        mean, std = (
            (torch.tensor(channels, dtype=torch.float32, device="cpu") * scale).view(-1, 1, 1)
            for channels in (image_processor.image_mean, image_processor.image_std)
        )
        self._mean, self._std, self._dtype = mean.to(device), std.to(device), dtype

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return `[..., 3, height, width]` as the tower takes it.

        Args:
            pixels: uint8 `[..., height, width, 3]`, as pictures are in memory.
        """
        planes = pixels.movedim(-1, -3).contiguous().to(torch.float32)
        return planes.sub_(self._mean).div_(self._std).to(self._dtype)


def normalises(image_processor: Any) -> bool:
    """Return whether the last step of HF's image processor is the one of `ByteNormalizer`."""
    from transformers.image_processing_backends import TorchvisionBackend

    return (
        isinstance(image_processor, TorchvisionBackend)
        and bool(image_processor.do_rescale and image_processor.do_normalize)
        and bool(image_processor.do_convert_rgb)
    )
