"""Estimate token counts of images, for routers and billing: from their sizes or, if what they show
matters, from the images themselves. The tower does not run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from fastapi import HTTPException
from vllm.exceptions import VLLMValidationError
from vllm.multimodal.media import ImageMediaIO
from vllm.multimodal.parse import ImageSize as Size

from vllm_pruner.methods.faults import MethodFault
from vllm_pruner.picture import UNSEEN, Picture, measure
from vllm_pruner.settings.bounds import size_fault
from vllm_pruner.settings.detail import DETAIL
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.settings.keys import KEY
from vllm_pruner.settings.rules import resolve
from vtprune_server.protocol import EstimateRequest, EstimateResponse, ImageEstimate, ImageSize
from vtprune_server.surface import Surface

__all__ = ["estimate"]


async def estimate(surface: Surface, body: EstimateRequest) -> EstimateResponse:
    """Count the visual tokens of images before and after pruning.

    Raises:
        VLLMValidationError: 400, for settings or images that a chat completion would refuse, too.
        HTTPException: 500, for a method of another package that returns no valid count.
    """
    sizes, pictures = [], []
    for image in body.images:
        size, picture = await _seen(image)
        sizes.append(size)
        pictures.append(picture)
    return _counted(surface, body, sizes, pictures)


async def _seen(image: ImageSize) -> tuple[Size, Picture]:
    """Return the size of an image, and what it shows."""
    if image.url is None:
        return Size(image.width or 0, image.height or 0), UNSEEN
    return await asyncio.to_thread(_read, image.url)


def _read(url: str) -> tuple[Size, Picture]:
    """Decode an image as vLLM does; return its size and what it shows."""
    kind, _, data = url.partition(";base64,")
    try:
        picture = ImageMediaIO().load_base64(kind, data).media
    except VLLMValidationError:
        raise
    except ValueError as error:
        raise VLLMValidationError(f"images: {error}", parameter="images") from None
    return Size(*picture.size), measure(picture)


def _counted(
    surface: Surface, body: EstimateRequest, sizes: Sequence[Size], pictures: Sequence[Picture]
) -> EstimateResponse:
    info = surface.image_info
    requested = {**(body.vtprune or {}), DETAIL: [image.detail for image in body.images]}
    try:
        if fault := next(filter(None, (size_fault(surface.config.limits, s) for s in sizes)), None):
            raise fault
        tokens = [info.image_tokens(size) for size in sizes]
        configs = resolve(info, requested, tokens, lambda: pictures)
        images = [
            ImageEstimate(
                original=count,
                kept=config.keep_count(count),
                floor=None if config.floor == "off" else config.floor,
            )
            for count, config in zip(tokens, configs, strict=True)
        ]
    except ConfigError as error:
        raise VLLMValidationError(f"{KEY}: {error.at_request()}", parameter=KEY) from None
    except MethodFault as error:
        raise HTTPException(500, f"{KEY}: {error}") from None
    return EstimateResponse(images=images, original=sum(tokens), kept=sum(i.kept for i in images))
