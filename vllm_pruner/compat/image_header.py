"""An image's size, before anything of it is decoded.

Replaces: `open_image` where `ImageMediaIO.load_bytes` calls it; until 0.31, which has none, the
latter.
Why: a file of some kilobytes may say that it has as many pixels as memory can hold, and vLLM
decodes it before a processor sees it; its own bound is one of the environment, of pixels alone.
Relies on: every file, whatever its URL, passing there, in a thread for files. What is inside an
icon (ICO, ICNS, BLP) has a size of its own, up to Pillow's bound, that the processor refuses.
vLLM versions: 0.31 to 0.33.
Goes when: vLLM asks a processor, or a plugin, for the sizes that it takes.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from typing import Any

from vllm_pruner.compat.patching import Patch, apply

__all__ = ["patch_image_header"]

_Check = Callable[[tuple[int, int] | None], None]


def patch_image_header(check: _Check) -> None:
    """Look at the header of every image file. Safe to call again.

    Args:
        check: called with width and height, None if Pillow refuses them itself; raises what the
            client gets.

    Raises:
        RuntimeError: this vLLM lacks the method.
    """
    from vllm.multimodal.media import image as media

    if hasattr(media, "open_image"):
        apply(Patch(media, "open_image", partial(_opened, check)))
    else:
        apply(Patch(media.ImageMediaIO, "load_bytes", partial(_loaded, check)))


def _opened(check: _Check, open_image: Callable[..., Any]) -> Callable[..., Any]:
    """Return an `open_image` that looks at what it has opened."""

    def open_checked(file: Any) -> Any:
        from PIL import Image

        try:
            image = open_image(file)
        except Image.DecompressionBombError:
            check(None)
            raise
        check(image.size)
        return image

    return open_checked


def _loaded(check: _Check, load: Callable[..., Any]) -> Callable[..., Any]:
    """Return a `load_bytes` that looks at the file first."""

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
        return  # vLLM says what is wrong with the file
    check(size)
