"""ASGI middleware for tests: counts the images that HF's image processor is called with, or
vtprune's way around it.

Loaded into each API server by `--middleware`; the product knows nothing of it.
"""

from __future__ import annotations

import os
from typing import Any

from starlette.responses import JSONResponse
from transformers.image_processing_utils import BaseImageProcessor

from vllm_pruner.prompt import byte_pixels

_images = 0
_preprocess = BaseImageProcessor.preprocess
_cropped = byte_pixels.cropped


def _counting(self: Any, images: Any, *args: Any, **kwargs: Any) -> Any:
    global _images
    _images += len(images) if isinstance(images, list) else 1
    return _preprocess(self, images, *args, **kwargs)


def _counting_bytes(image_processor: Any, images: Any) -> Any:
    global _images
    _images += len(images)
    return _cropped(image_processor, images)


BaseImageProcessor.preprocess = _counting
byte_pixels.cropped = _counting_bytes


class PreprocessProbe:
    """Answers `GET /preprocessed` with the count since this process started."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope.get("path") == "/preprocessed":
            answer = JSONResponse({"images": _images, "process": os.getpid()})
            await answer(scope, receive, send)
        else:
            await self._app(scope, receive, send)
