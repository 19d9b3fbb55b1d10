"""Decode a JPEG that has been decoded before only when its pixels are needed.

Replaces: `ImageMediaIO.load_bytes`.
Why: a chat sends all its images again with every turn, and vLLM decodes each before it looks into
its caches, although these are keyed by the file's bytes, and by `io_config` if the image is not
what the file holds: converted, or decoded at another size.
Relies on: `load_bytes` returning the image itself unless it must be converted or rotated; Pillow
decoding lazily, and decoding the same bytes to the same image.
vLLM versions: 0.32 and 0.33; earlier ones decode every time.
Goes when: vLLM looks into its caches first.
"""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Any

from vllm_pruner.compat.patching import Patch, apply

__all__ = ["DecodedAt", "Reduce", "patch_known_files", "reduces_files"]

_MOST = 1 << 16
"""Files remembered, by a digest of 16 bytes; the least recently used ones are forgotten first."""

_JPEG = b"\xff\xd8"
"""The first bytes of a JPEG file. For other formats, Pillow reads the whole file for metadata."""

_UPRIGHT = 1
"""EXIF's orientation of an image that needs no rotation."""


Reduce = Callable[[Any], None]
"""Called with an image of which only the header has been read."""

DecodedAt = Callable[[Any], tuple[int, int] | None]
"""Returns the size at which an image is decoded, if that is not its own."""


def patch_known_files(reduce: Reduce, decoded_at: DecodedAt) -> None:
    """Decode known JPEGs lazily. Safe to call again.

    Args:
        reduce: may have a known image decoded at another size, as `patch_image_header` does with
            a new one.
        decoded_at: returns that size.

    Raises:
        RuntimeError: this vLLM lacks the method.
    """
    from vllm.multimodal.media import image as media

    if reduces_files():
        wrap = partial(_unless_known, reduce, decoded_at)
        apply(Patch(media.ImageMediaIO, "load_bytes", wrap))


def reduces_files() -> bool:
    """Return whether this vLLM opens files where `reduce` can be called: from 0.32 on."""
    from vllm.multimodal.media import image as media

    return hasattr(media, "open_image")


class _Files:
    """The files that have been decoded and needed no conversion. Thread-safe."""

    def __init__(self) -> None:
        self._names: OrderedDict[object, None] = OrderedDict()
        self._lock = Lock()

    def add(self, name: object) -> None:
        with self._lock:
            self._names[name] = None
            self._names.move_to_end(name)
            if len(self._names) > _MOST:
                self._names.popitem(last=False)

    def __contains__(self, name: object) -> bool:
        return name in self._names


def _unless_known(
    reduce: Reduce, decoded_at: DecodedAt, load: Callable[..., Any]
) -> Callable[..., Any]:
    """Return a `load_bytes` that does not decode a known file."""
    known = _Files()

    def load_bytes(self: Any, data: bytes) -> Any:
        name = hashlib.blake2b(data, digest_size=16).digest(), self.image_mode
        if name in known and (picture := _opened(self, data, reduce)) is not None:
            known.add(name)
        else:
            picture = load(self, data)
            if picture.io_config is None and data.startswith(_JPEG):
                known.add(name)
        if (size := decoded_at(picture.media)) is not None:
            picture.io_config = {**(picture.io_config or {}), "decoded_at": size}
        return picture

    return load_bytes


def _opened(media_io: Any, data: bytes, reduce: Reduce) -> Any:
    """Return an image of which only the header has been read; None if it needs rotation."""
    from PIL.ExifTags import Base
    from vllm.multimodal.image import open_image
    from vllm.multimodal.media.base import MediaWithBytes

    image = open_image(io.BytesIO(data))
    try:
        if image.getexif().get(Base.Orientation) not in (None, _UPRIGHT):
            return None
    except Exception:
        return None  # leave unreadable metadata to vLLM
    reduce(image)
    if (budget := getattr(media_io, "decoded_budget", None)) is not None:  # from 0.33 on
        budget.charge(image.width * image.height * 4)
    return MediaWithBytes(image, data)
