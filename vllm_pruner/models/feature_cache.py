"""What the tower made of an image, kept on the device for the next question about it.

vLLM caches an image's embeddings as they enter the decoder, and those depend on the settings and,
for a text-aware method, on the question. Features and importance depend on the image alone, so they
are kept here under the image's own identity: another question, rate or method skips the tower.

The memory is taken when the model is built, so vLLM's memory profile counts it. Every rank is asked
for the same images in the same order and so holds the same ones.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch

__all__ = ["FeatureCache"]


class FeatureCache:
    """The most recently used images, as many as fit into a number of bytes."""

    def __init__(
        self, size: int, tokens: int, width: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        """Take the memory.

        Args:
            size: bytes at most; 0, or less than one image takes, keeps nothing.
            tokens: N, visual tokens of an image.
            width: D, channels of a feature.
            dtype: of the features; importance is float32.
            device: where the tower runs.
        """
        self._slots = size // (tokens * (width * dtype.itemsize + 4))
        self._features = torch.empty(self._slots, tokens, width, dtype=dtype, device=device)
        self._importance = torch.empty(self._slots, tokens, dtype=torch.float32, device=device)
        self._slot_of: OrderedDict[str, int] = OrderedDict()
        self.hits = self.misses = 0

    def fetch(
        self,
        images: Sequence[str],
        encode: Callable[[list[int]], tuple[torch.Tensor, torch.Tensor]],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features and importance of images, encoding those that are not known.

        Args:
            images: identities, possibly repeated.
            encode: called with places in `images`, at most once and with each image once; returns
                `[places, N, D]` features and `[places, N]` importance.

        Returns:
            `[images, N, D]` and `[images, N]`, not shared with the cache.
        """
        missing = [image for image in dict.fromkeys(images) if image not in self._slot_of]
        self.hits += len(images) - len(missing)
        self.misses += len(missing)
        # Read before anything is written: a new image may take the place of one that is asked for.
        rows = {image: self._read(image) for image in images if image in self._slot_of}
        if missing:
            features, importance = encode([images.index(image) for image in missing])
            for row, image in enumerate(missing):
                rows[image] = features[row], importance[row]
                self._write(image, *rows[image])
            if len(missing) == len(images):
                return features, importance
        return (
            torch.stack([rows[image][0] for image in images]),
            torch.stack([rows[image][1] for image in images]),
        )

    def _read(self, image: str) -> tuple[torch.Tensor, torch.Tensor]:
        self._slot_of.move_to_end(image)
        slot = self._slot_of[image]
        return self._features[slot].clone(), self._importance[slot].clone()

    def _write(self, image: str, features: torch.Tensor, importance: torch.Tensor) -> None:
        """Keep an image, in place of the one that was asked for longest ago if all is taken."""
        if not self._slots:
            return
        full = len(self._slot_of) == self._slots
        slot = self._slot_of.popitem(last=False)[1] if full else len(self._slot_of)
        self._features[slot].copy_(features)
        self._importance[slot].copy_(importance)
        self._slot_of[image] = slot

    def clear(self) -> None:
        """Forget all images."""
        self._slot_of.clear()

    def __len__(self) -> int:
        return len(self._slot_of)
