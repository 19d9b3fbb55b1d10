"""An image's size, before anything of it is decoded.

Replaces: `ImageMediaIO.load_bytes`.
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
from typing import Any

from vllm_pruner.compat.patching import Patch, apply

__all__ = ["patch_image_header"]


def patch_image_header(check: Callable[[tuple[int, int] | None], None]) -> None:
    """Look at the header of every image file. Safe to call again.

    Args:
        check: called with width and height, None if Pillow refuses them itself; raises what the
            client gets.

    Raises:
        RuntimeError: this vLLM lacks the method.
    """
    from vllm.multimodal.media.image import ImageMediaIO

    def checked(load: Callable[..., Any]) -> Callable[..., Any]:
        def load_bytes(self: Any, data: bytes) -> Any:
            _look(data, check)
            return load(self, data)

        return load_bytes

    apply(Patch(ImageMediaIO, "load_bytes", checked))


def _look(data: bytes, check: Callable[[tuple[int, int] | None], None]) -> None:
    from PIL import Image
    from vllm.multimodal.media import image as media

    open_image = getattr(media, "open_image", Image.open)  # 0.31 may lack its list of formats
    try:
        with open_image(io.BytesIO(data)) as image:
            size = image.size
    except Image.DecompressionBombError:
        size = None
    except Exception:
        return  # vLLM says what is wrong with the file
    check(size)
