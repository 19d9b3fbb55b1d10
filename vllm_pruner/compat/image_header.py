"""Check an image's size before it is decoded.

Replaces: `open_image` where `ImageMediaIO.load_bytes` calls it; `load_bytes` itself in 0.31, which
lacks the former.
Why: the header of a file of a few kilobytes may declare enough pixels to fill the memory, and vLLM
decodes the file before a processor sees it. vLLM's own bound is an environment variable, on the
number of pixels only.
Relies on: every file, whatever its URL, being loaded there, in a thread for files. An image inside
an icon (ICO, ICNS, BLP) may have another size, up to Pillow's bound; the processor refuses it.
vLLM versions: 0.31 to 0.33.
Goes when: vLLM asks a processor or a plugin which sizes it accepts.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from typing import Any

from vllm_pruner.compat.patching import Patch, apply

__all__ = ["patch_image_header"]

_Check = Callable[[tuple[int, int] | None], None]


def patch_image_header(check: _Check, reduce: Callable[[Any], None]) -> None:
    """Check the header of every image file. Safe to call again.

    Args:
        check: called with width and height, or None if Pillow itself refuses the size; raises the
            error that the client gets.
        reduce: called with the image after that; may have it decoded at another size. Not in 0.31.

    Raises:
        RuntimeError: this vLLM lacks the method.
    """
    from vllm.multimodal.media import image as media

    if hasattr(media, "open_image"):
        apply(Patch(media, "open_image", partial(_opened, check, reduce)))
    else:
        apply(Patch(media.ImageMediaIO, "load_bytes", partial(_loaded, check)))


def _opened(
    check: _Check, reduce: Callable[[Any], None], open_image: Callable[..., Any]
) -> Callable[..., Any]:
    """Return an `open_image` that checks the image it opened."""

    def open_checked(file: Any) -> Any:
        from PIL import Image

        try:
            image = open_image(file)
        except Image.DecompressionBombError:
            check(None)
            raise
        check(image.size)
        reduce(image)
        return image

    return open_checked


def _loaded(check: _Check, load: Callable[..., Any]) -> Callable[..., Any]:
    """Return a `load_bytes` that checks the file first."""

    def load_bytes(self: Any, data: bytes) -> Any:
        _look(data, check)
        return load(self, data)

    return load_bytes


def _look(data: bytes, check: _Check) -> None:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            size = image.size
    except Image.DecompressionBombError:
        size = None
    except Exception:
        return  # vLLM reports what is wrong with the file
    check(size)
