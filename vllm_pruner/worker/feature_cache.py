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
"""An image's identity and its number of rows."""

_Columns = dict[str, torch.Tensor]
"""`[rows, ...]` by column."""


class FeatureCache:
    """An LRU cache of images, bounded in bytes.

    The memory is divided into slots of a few rows. An image takes as many slots as its rows need
    and is evicted as a whole; its slots need not be neighbours, so nothing needs to be
    defragmented.
    """

    def __init__(
        self,
        size: int,
        page: int,
        columns: Mapping[str, tuple[int, torch.dtype]],
        device: torch.device,
    ) -> None:
        """Allocate the memory.

        Args:
            size: bytes at most; 0, or less than a slot takes, keeps nothing.
            page: rows of a slot.
            columns: by name, width and dtype of what is kept for each row. Width 0 is a scalar,
                without an axis of its own.
            device: where the tower runs.
        """
        row_bytes = sum(max(1, width) * dtype.itemsize for width, dtype in columns.values())
        self._page, self._page_bytes = page, page * row_bytes
        slots = size // self._page_bytes
        self._values = {
            name: torch.empty(
                (slots * page, width)[: 2 if width else 1], dtype=dtype, device=device
            )
            for name, (width, dtype) in columns.items()
        }
        self._slots_of: OrderedDict[_Key, list[int]] = OrderedDict()
        self._rows_of: dict[_Key, torch.Tensor] = {}
        self._free = list(range(slots))
        self._slots, self._device = slots, device
        self.hits = self.misses = 0

    def fetch(
        self,
        images: Sequence[str],
        lengths: Sequence[int],
        encode: Callable[[list[int]], _Columns],
    ) -> _Columns:
        """Return all columns of images, encoding those that are not cached.

        Args:
            images: identities, possibly repeated.
            lengths: number of rows of each image. It is part of the key: an image that another
                tower's arguments made larger has its own rows.
            encode: called with indices into `images`, at most once and with each image once;
                returns `[rows of these, ...]` for every column.

        Returns:
            `[rows, ...]` for every column, image by image; no views of the cache.
        """
        keys = list(zip(images, lengths, strict=True))
        missing = [key for key in dict.fromkeys(keys) if key not in self._slots_of]
        self.hits += len(keys) - len(missing)
        self.misses += len(missing)
        # Read before anything is written: a new image may evict one that is asked for.
        found = {key: self._read(key) for key in dict.fromkeys(keys) if key in self._slots_of}
        if missing:
            encoded = encode([keys.index(key) for key in missing])
            start = 0
            for key in missing:
                part = slice(start, start := start + key[1])
                found[key] = {name: encoded[name][part] for name in self._values}
                self._write(key, found[key])
            if len(missing) == len(keys):
                return encoded
        return {name: torch.cat([found[key][name] for key in keys]) for name in self._values}

    def _read(self, key: _Key) -> _Columns:
        self._slots_of.move_to_end(key)
        rows = self._rows_of[key]
        return {name: values.index_select(0, rows) for name, values in self._values.items()}

    def _write(self, key: _Key, columns: _Columns) -> None:
        """Cache an image, evicting the least recently used ones if there is no room."""
        _, length = key
        needed = -(-length // self._page)
        if needed > self._slots:
            return
        while len(self._free) < needed:
            oldest, slots = self._slots_of.popitem(last=False)
            self._free += slots
            del self._rows_of[oldest]
        slots, self._free = self._free[:needed], self._free[needed:]
        self._slots_of[key], self._rows_of[key] = slots, self._rows(slots)[:length]
        for name, values in self._values.items():
            values.index_copy_(0, self._rows_of[key], columns[name])

    def _rows(self, slots: list[int]) -> torch.Tensor:
        """Return `[slots * page]`, where the rows of slots are."""
        starts = torch.tensor(slots, dtype=torch.int64).to(self._device, non_blocking=True)
        page = torch.arange(self._page, device=self._device)
        return (starts.unsqueeze(1) * self._page + page).flatten()

    def clear(self) -> None:
        """Evict all images."""
        self._slots_of.clear()
        self._rows_of.clear()
        self._free = list(range(self._slots))

    @property
    def bytes(self) -> int:
        """Bytes in use."""
        return (self._slots - len(self._free)) * self._page_bytes

    def __len__(self) -> int:
        return len(self._slots_of)
