"""A cache of the tower's output on the device, for the next question about the same image.

vLLM caches an image's embeddings as they enter the decoder, and those depend on the settings and,
for a text-aware method, on the question. Features, importance and whatever else a method reads in
the tower depend on the image alone, so they are cached here under the image's own identity: another
question, rate or method skips the tower.

The memory is allocated when the model is built, so vLLM's memory profile includes it. All ranks ask
for the same images in the same order and so hold the same ones.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import torch

__all__ = ["FeatureCache"]

_Key = tuple[str, int]
"""An image's identity and its number of crops."""

_Rows = dict[str, torch.Tensor]
"""`[crops, N, ...]` by column."""


class FeatureCache:
    """An LRU cache of images, bounded in bytes.

    The memory is divided into slots of one crop. An image takes a slot for each of its crops and is
    evicted as a whole; its slots need not be neighbours, so nothing needs to be defragmented.
    """

    def __init__(
        self,
        size: int,
        tokens: int,
        columns: Mapping[str, tuple[int, torch.dtype]],
        device: torch.device,
    ) -> None:
        """Allocate the memory.

        Args:
            size: bytes at most; 0, or less than a crop takes, keeps nothing.
            tokens: N, visual tokens of a crop.
            columns: by name, width and dtype of what is kept for each token. Width 0 is a scalar,
                without an axis of its own.
            device: where the tower runs.
        """
        token_bytes = sum(max(1, width) * dtype.itemsize for width, dtype in columns.values())
        self._slots = size // (tokens * token_bytes)
        self._values = {
            name: torch.empty(
                (self._slots, tokens, width)[: 3 if width else 2], dtype=dtype, device=device
            )
            for name, (width, dtype) in columns.items()
        }
        self._slots_of: OrderedDict[_Key, list[int]] = OrderedDict()
        self._free = list(range(self._slots))
        self.hits = self.misses = 0

    def fetch(
        self,
        images: Sequence[str],
        crops: Sequence[int],
        encode: Callable[[list[int]], _Rows],
    ) -> _Rows:
        """Return all columns of images, encoding those that are not cached.

        Args:
            images: identities, possibly repeated.
            crops: number of crops of each image. It is part of the key: a client that gives two
                images one identity gets the first one's rows, as from vLLM's own caches, but never
                rows of another shape.
            encode: called with indices into `images`, at most once and with each image once;
                returns `[crops of these, N, ...]` for every column.

        Returns:
            `[all crops, N, ...]` for every column, image by image; no views of the cache.
        """
        keys = list(zip(images, crops, strict=True))
        missing = [key for key in dict.fromkeys(keys) if key not in self._slots_of]
        self.hits += len(keys) - len(missing)
        self.misses += len(missing)
        # Read before anything is written: a new image may evict one that is asked for.
        rows = {key: self._read(key) for key in dict.fromkeys(keys) if key in self._slots_of}
        if missing:
            encoded = encode([keys.index(key) for key in missing])
            start = 0
            for key in missing:
                part = slice(start, start := start + key[1])
                rows[key] = {name: encoded[name][part] for name in self._values}
                self._write(key, rows[key])
            if len(missing) == len(keys):
                return encoded
        return {name: torch.cat([rows[key][name] for key in keys]) for name in self._values}

    def _read(self, key: _Key) -> _Rows:
        self._slots_of.move_to_end(key)
        slots = self._slots_of[key]
        return {
            name: torch.stack([values[slot] for slot in slots])
            for name, values in self._values.items()
        }

    def _write(self, key: _Key, rows: _Rows) -> None:
        """Cache an image, evicting the least recently used ones if there is no room."""
        _, crops = key
        if crops > self._slots:
            return
        while len(self._free) < crops:
            self._free += self._slots_of.popitem(last=False)[1]
        slots, self._free = self._free[:crops], self._free[crops:]
        for name, values in self._values.items():
            for slot, row in zip(slots, rows[name], strict=True):
                values[slot].copy_(row)
        self._slots_of[key] = slots

    def clear(self) -> None:
        """Evict all images."""
        self._slots_of.clear()
        self._free = list(range(self._slots))

    @property
    def bytes(self) -> int:
        """Bytes in use."""
        used = self._slots - len(self._free)
        return used * sum(values[:1].nbytes for values in self._values.values())

    def __len__(self) -> int:
        return len(self._slots_of)
