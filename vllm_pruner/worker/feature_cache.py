"""A cache of the tower's output on the device, for the next question about the same image.

vLLM caches an image's embeddings as they enter the decoder, and those depend on the settings and,
for a text-aware method, on the question. Features, importance and whatever else a method reads in
the tower depend on the image alone, so they are cached here under the image's own identity: another
question, rate or method does not run the tower again.

The memory is allocated when the model is built, so vLLM's memory profile includes it. All ranks
fetch the same images in the same order, so their caches hold the same images.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from vllm_pruner.methods.on_device import on_device

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
            size: most bytes to allocate; with less than one slot takes, nothing is cached.
            page: rows per slot.
            columns: width and dtype of each column, by name. Width 0 is a scalar per row, without
                an axis of its own.
            device: the tower's device.
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
            lengths: number of rows of each image. It is part of the key, because other processor
                arguments may give the same image more rows.
            encode: called at most once, with indices into `images`, none repeated; returns
                `[rows of these images, ...]` for every column.

        Returns:
            `[rows, ...]` for every column, image by image; never views of the cache.
        """
        keys = list(zip(images, lengths, strict=True))
        missing = [key for key in dict.fromkeys(keys) if key not in self._slots_of]
        self.hits += len(keys) - len(missing)
        self.misses += len(missing)
        if not missing:
            return self._read(keys)
        # Read before writing: a new image may evict one that this call returns.
        known = [key for key in dict.fromkeys(keys) if key in self._slots_of]
        found = _by_image(known, self._read(known)) if known else {}
        encoded = encode([keys.index(key) for key in missing])
        self._write(missing, encoded)
        if len(missing) == len(keys):
            return encoded
        found |= _by_image(missing, {name: encoded[name] for name in self._values})
        return {name: torch.cat([found[key][name] for key in keys]) for name in self._values}

    def _read(self, keys: Sequence[_Key]) -> _Columns:
        """Return the rows of cached images, with one copy per column."""
        for key in keys:
            self._slots_of.move_to_end(key)
        rows = _joined([self._rows_of[key] for key in keys])
        return {name: values.index_select(0, rows) for name, values in self._values.items()}

    def _write(self, keys: Sequence[_Key], columns: _Columns) -> None:
        """Cache images, evicting the least recently used ones if there is no room. One copy per
        column; images that others of this call evict again are not copied."""
        for key in keys:
            self._take(key)
        staying = [key for key in keys if key in self._slots_of]
        if not staying:
            return
        rows = self._rows(staying)
        lengths = [length for _, length in staying]
        self._rows_of.update(zip(staying, rows.split(lengths), strict=True))
        kept = {name: columns[name] for name in self._values}
        if len(staying) < len(keys):
            parts = _by_image(keys, kept)
            kept = {name: _joined([parts[key][name] for key in staying]) for name in kept}
        for name, column in kept.items():
            self._values[name].index_copy_(0, rows, column)

    def _take(self, key: _Key) -> None:
        """Assign slots to an image, unless it is larger than the cache."""
        needed = -(-key[1] // self._page)
        if needed > self._slots:
            return
        while len(self._free) < needed:
            oldest, slots = self._slots_of.popitem(last=False)
            self._free += slots
            self._rows_of.pop(oldest, None)
        self._slots_of[key], self._free = self._free[:needed], self._free[needed:]

    def _rows(self, keys: Sequence[_Key]) -> torch.Tensor:
        """Return the indices of images' rows in the cache, image by image. The host computes them:
        one copy costs it less than the launches."""
        page = np.arange(self._page)
        parts = [
            np.add.outer(np.multiply(self._slots_of[key], self._page), page).ravel()[: key[1]]
            for key in keys
        ]
        return on_device(np.concatenate(parts), self._device)

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


def _by_image(keys: Sequence[_Key], columns: _Columns) -> dict[_Key, _Columns]:
    """Return the columns of each image, as views."""
    lengths = [length for _, length in keys]
    parts = {name: rows.split(lengths) for name, rows in columns.items()}
    return {
        key: {name: rows[place] for name, rows in parts.items()} for place, key in enumerate(keys)
    }


def _joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))
