"""A JPEG that was decoded before is not decoded again until somebody looks at its pixels.

Replaces: `ImageMediaIO.load_bytes`.
Why: a chat sends all of its pictures again with every turn, and vLLM decodes each before it looks
whether its caches know it; they go by the file's bytes.
Relies on: what `load_bytes` returns being the picture itself if it need not be converted or turned;
Pillow decoding when pixels are asked for, and taking the same bytes for the same picture.
vLLM versions: 0.32 and 0.33; earlier ones decode every time.
Goes when: vLLM looks into its caches first.
"""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Any

from vllm_pruner.compat.patching import Patch, apply

__all__ = ["patch_known_files"]

_MOST = 1 << 16
"""Files remembered, by a digest of 16 bytes; the ones not used for longest go first."""

_JPEG = b"\xff\xd8"
"""How its files begin. Pillow reads those of other formats whole to answer for their metadata."""

_UPRIGHT = 1
"""Of EXIF's orientations the one of a picture that is not to be turned."""


def patch_known_files() -> None:
    """Leave known JPEGs undecoded. Safe to call again.

    Raises:
        RuntimeError: this vLLM lacks the method.
    """
    from vllm.multimodal.media import image as media

    if hasattr(media, "open_image"):
        apply(Patch(media.ImageMediaIO, "load_bytes", _unless_known))


class _Files:
    """Which files were decoded, and did not have to be converted."""

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


def _unless_known(load: Callable[..., Any]) -> Callable[..., Any]:
    """Return a `load_bytes` that decodes only what it has not decoded before."""
    known = _Files()

    def load_bytes(self: Any, data: bytes) -> Any:
        name = hashlib.blake2b(data, digest_size=16).digest(), self.image_mode
        if name in known and (picture := _opened(self, data)) is not None:
            known.add(name)
            return picture
        loaded = load(self, data)
        if loaded.io_config is None and data.startswith(_JPEG):
            known.add(name)
        return loaded

    return load_bytes


def _opened(media_io: Any, data: bytes) -> Any:
    """Return a picture of which only the header is read; None if it has to be turned."""
    from PIL.ExifTags import Base
    from vllm.multimodal.image import open_image
    from vllm.multimodal.media.base import MediaWithBytes

    image = open_image(io.BytesIO(data))
    try:
        if image.getexif().get(Base.Orientation) not in (None, _UPRIGHT):
            return None
    except Exception:
        return None  # metadata that nobody can read is vLLM's to judge
    if (budget := getattr(media_io, "decoded_budget", None)) is not None:  # from 0.33 on
        budget.charge(image.width * image.height * 4)
    return MediaWithBytes(image, data)
