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

_Key = tuple[str, int]
"""An image's identity and its number of crops."""


class FeatureCache:
    """The most recently used images, as many as fit into a number of bytes.

    The memory is cut into slots of one crop. An image takes as many as it has crops and is kept and
    forgotten as a whole; the slots need not be neighbours, so there is nothing to defragment.
    """

    def __init__(
        self, size: int, tokens: int, width: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        """Take the memory.

        Args:
            size: bytes at most; 0, or less than one crop takes, keeps nothing.
            tokens: N, visual tokens of a crop.
            width: D, channels of a feature.
            dtype: of the features; importance is float32.
            device: where the tower runs.
        """
        slots = size // (tokens * (width * dtype.itemsize + 4))
        self._features = torch.empty(slots, tokens, width, dtype=dtype, device=device)
        self._importance = torch.empty(slots, tokens, dtype=torch.float32, device=device)
        self._slots_of: OrderedDict[_Key, list[int]] = OrderedDict()
        self._free = list(range(slots))
        self.hits = self.misses = 0

    def fetch(
        self,
        images: Sequence[str],
        crops: Sequence[int],
        encode: Callable[[list[int]], tuple[torch.Tensor, torch.Tensor]],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features and importance of images, encoding those that are not known.

        Args:
            images: identities, possibly repeated.
            crops: of each image. A client that gives two images one identity gets what vLLM's own
                caches give it, but never rows that do not fit.
            encode: called with places in `images`, at most once and with each image once; returns
                `[crops of these, N, D]` features and `[crops of these, N]` importance.

        Returns:
            `[all crops, N, D]` and `[all crops, N]`, image by image, not shared with the cache.
        """
        keys = list(zip(images, crops, strict=True))
        missing = [key for key in dict.fromkeys(keys) if key not in self._slots_of]
        self.hits += len(keys) - len(missing)
        self.misses += len(missing)
        # Read before anything is written: a new image may take the place of one that is asked for.
        rows = {key: self._read(key) for key in dict.fromkeys(keys) if key in self._slots_of}
        if missing:
            features, importance = encode([keys.index(key) for key in missing])
            counts = [count for _, count in missing]
            parts = zip(features.split(counts), importance.split(counts), strict=True)
            for key, part in zip(missing, parts, strict=True):
                rows[key] = part
                self._write(key, *part)
            if len(missing) == len(keys):
                return features, importance
        return torch.cat([rows[key][0] for key in keys]), torch.cat([rows[key][1] for key in keys])

    def _read(self, key: _Key) -> tuple[torch.Tensor, torch.Tensor]:
        self._slots_of.move_to_end(key)
        slots = self._slots_of[key]
        return (
            torch.stack([self._features[slot] for slot in slots]),
            torch.stack([self._importance[slot] for slot in slots]),
        )

    def _write(self, key: _Key, features: torch.Tensor, importance: torch.Tensor) -> None:
        """Keep an image, in place of those that were asked for longest ago if all is taken."""
        _, crops = key
        if crops > len(self._features):
            return
        while len(self._free) < crops:
            self._free += self._slots_of.popitem(last=False)[1]
        slots, self._free = self._free[:crops], self._free[crops:]
        for slot, feature, score in zip(slots, features, importance, strict=True):
            self._features[slot].copy_(feature)
            self._importance[slot].copy_(score)
        self._slots_of[key] = slots

    def clear(self) -> None:
        """Forget all images."""
        self._slots_of.clear()
        self._free = list(range(len(self._features)))

    def __len__(self) -> int:
        return len(self._slots_of)
