"""What the tower made of an image, kept on the device for the next question about it.

vLLM caches an image's embeddings as they enter the decoder, and those depend on the settings and,
for a text-aware method, on the question. Features, importance and what else a method reads in the
tower depend on the image alone, so they are kept here under the image's own identity: another
question, rate or method skips the tower.

The memory is taken when the model is built, so vLLM's memory profile counts it. Every rank is asked
for the same images in the same order and so holds the same ones.
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
    """The most recently used images, as many as fit into a number of bytes.

    The memory is cut into slots of one crop. An image takes as many as it has crops and is kept and
    forgotten as a whole; the slots need not be neighbours, so there is nothing to defragment.
    """

    def __init__(
        self,
        size: int,
        tokens: int,
        columns: Mapping[str, tuple[int, torch.dtype]],
        device: torch.device,
    ) -> None:
        """Take the memory.

        Args:
            size: bytes at most; 0, or less than one crop takes, keeps nothing.
            tokens: N, visual tokens of a crop.
            columns: by name, what is kept of each token: how many numbers (0 is a single one,
                without an axis of its own) of which type.
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
        """Return all columns of images, encoding those that are not known.

        Args:
            images: identities, possibly repeated.
            crops: of each image. A client that gives two images one identity gets what vLLM's own
                caches give it, but never rows that do not fit.
            encode: called with places in `images`, at most once and with each image once; returns
                `[crops of these, N, ...]` for every column.

        Returns:
            `[all crops, N, ...]` for every column, image by image, not shared with the cache.
        """
        keys = list(zip(images, crops, strict=True))
        missing = [key for key in dict.fromkeys(keys) if key not in self._slots_of]
        self.hits += len(keys) - len(missing)
        self.misses += len(missing)
        # Read before anything is written: a new image may take the place of one that is asked for.
        rows = {key: self._read(key) for key in dict.fromkeys(keys) if key in self._slots_of}
        if missing:
            made = encode([keys.index(key) for key in missing])
            start = 0
            for key in missing:
                part = slice(start, start := start + key[1])
                rows[key] = {name: made[name][part] for name in self._values}
                self._write(key, rows[key])
            if len(missing) == len(keys):
                return made
        return {name: torch.cat([rows[key][name] for key in keys]) for name in self._values}

    def _read(self, key: _Key) -> _Rows:
        self._slots_of.move_to_end(key)
        slots = self._slots_of[key]
        return {
            name: torch.stack([values[slot] for slot in slots])
            for name, values in self._values.items()
        }

    def _write(self, key: _Key, rows: _Rows) -> None:
        """Keep an image, in place of those that were asked for longest ago if all is taken."""
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
        """Forget all images."""
        self._slots_of.clear()
        self._free = list(range(self._slots))

    @property
    def bytes(self) -> int:
        """Bytes that images take now."""
        used = self._slots - len(self._free)
        return used * sum(values[:1].nbytes for values in self._values.values())

    def __len__(self) -> int:
        return len(self._slots_of)
