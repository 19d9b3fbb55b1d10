"""Decode a JPEG that has been decoded before only when its pixels are needed, and a new one without
a copy.

Replaces: `ImageMediaIO.load_bytes`, and `normalize_image` where images are parsed.
Why: a chat sends all its images again with every turn, and vLLM decodes each before it looks into
its caches, although these are keyed by the file's bytes, and by `io_config` if the image is not
what the file holds: converted, or decoded at another size. Of a new one it makes a copy that is
turned upright, even if the file is upright, and another one when it parses what its caches lack.
Relies on: `load_bytes` returning the image itself unless it must be converted or rotated; Pillow
decoding lazily, and decoding the same bytes to the same image; nothing that is given a parsed image
changing it in place.
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
Decode = Callable[[Any, bytes], bool]
"""Decodes a file other than by Pillow and keeps its pixels with the image, if it returns true."""


def patch_known_files(
    reduce: Reduce, decoded_at: DecodedAt, decode: Decode, is_decoded: Callable[[Any], bool]
) -> None:
    """Decode known JPEGs lazily, and new ones without a copy. Safe to call again.

    Args:
        reduce: may have a known image decoded at another size, as `patch_image_header` does with
            a new one.
        decoded_at: returns that size.
        decode: decodes a new file that needs neither rotation nor conversion.
        is_decoded: returns whether `decode` did so for an image.

    Raises:
        RuntimeError: this vLLM lacks the method.
    """
    from vllm.multimodal import parse
    from vllm.multimodal.media import image as media

    if reduces_files():
        load = partial(_unless_known, reduce, decoded_at, decode)
        apply(
            Patch(media.ImageMediaIO, "load_bytes", load),
            Patch(parse, "normalize_image", partial(_unless_decoded, is_decoded)),
        )


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
    reduce: Reduce, decoded_at: DecodedAt, decode: Decode, load: Callable[..., Any]
) -> Callable[..., Any]:
    """Return a `load_bytes` that does not decode a known file."""
    known = _Files()

    def load_bytes(self: Any, data: bytes) -> Any:
        name = hashlib.blake2b(data, digest_size=16).digest(), self.image_mode
        picture = _opened(self, data, reduce) if name in known else _new(self, data, decode)
        if picture is not None:
            known.add(name)
        else:
            picture = load(self, data)
            if picture.io_config is None and data.startswith(_JPEG):
                known.add(name)
        if (size := decoded_at(picture.media)) is not None:
            picture.io_config = {**(picture.io_config or {}), "decoded_at": size}
        return picture

    return load_bytes


def _unless_decoded(
    is_decoded: Callable[[Any], bool], normalize: Callable[..., Any]
) -> Callable[..., Any]:
    """Return a `normalize_image` that returns an image which `_new` found upright."""

    def normalize_image(image: Any) -> Any:
        return image if is_decoded(image) else normalize(image)

    return normalize_image


def _opened(media_io: Any, data: bytes, reduce: Reduce) -> Any:
    """Return an image of which only the header has been read; None if it needs rotation."""
    from vllm.multimodal.image import open_image

    image = open_image(io.BytesIO(data))
    if not _is_upright(image):
        return None
    reduce(image)
    return _charged(media_io, data, image)


def _new(media_io: Any, data: bytes, decode: Decode) -> Any:
    """Return the decoded image of a file that needs neither rotation nor conversion; None for any
    other file, among them those that vLLM refuses."""
    from vllm import envs
    from vllm.multimodal.media import image as media

    if not data.startswith(_JPEG):
        return None
    try:
        image = vars(media)["open_image"](io.BytesIO(data))  # ours: see `image_header`
        most = envs.VLLM_MAX_IMAGE_PIXELS
        if image.mode != (media_io.image_mode or image.mode) or not _is_upright(image):
            return None
        if 0 < most < image.width * image.height:
            return None
        picture = _charged(media_io, data, image)
        if not decode(image, data):
            image.load()
        return picture
    except Exception:
        return None  # vLLM says what is wrong with it


def _is_upright(image: Any) -> bool:
    """Return whether vLLM leaves an image as it is; False if its metadata is unreadable."""
    from PIL.ExifTags import Base

    try:
        return image.getexif().get(Base.Orientation) in (None, _UPRIGHT)
    except Exception:
        return False


def _charged(media_io: Any, data: bytes, image: Any) -> Any:
    """Return an image as vLLM does, with its size counted towards a bound that it may have."""
    from vllm.multimodal.media.base import MediaWithBytes

    if (budget := getattr(media_io, "decoded_budget", None)) is not None:  # from 0.33 on
        budget.charge(image.width * image.height * 4)
    return MediaWithBytes(image, data)
