"""Token counts from image sizes alone, for routers and bills: nothing is computed."""

from __future__ import annotations

from fastapi import HTTPException
from vllm.exceptions import VLLMValidationError
from vllm.multimodal.parse import ImageSize

from vllm_pruner.methods.faults import MethodFault
from vllm_pruner.settings.bounds import size_fault
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.settings.keys import KEY
from vllm_pruner.settings.rules import DETAIL, resolve
from vtprune_server.protocol import EstimateRequest, EstimateResponse, ImageEstimate
from vtprune_server.surface import Surface

__all__ = ["estimate"]


def estimate(surface: Surface, body: EstimateRequest) -> EstimateResponse:
    """Count the visual tokens of images before and after pruning.

    Raises:
        VLLMValidationError: 400 for settings that a chat completion could not have either.
        HTTPException: 500 for a method of another package that names no such number.
    """
    info = surface.image_info
    sizes = [ImageSize(image.width, image.height) for image in body.images]
    requested = {**(body.vtprune or {}), DETAIL: [image.detail for image in body.images]}
    try:
        if fault := next(filter(None, (size_fault(surface.config.limits, s) for s in sizes)), None):
            raise fault
        tokens = [info.image_tokens(size) for size in sizes]
        configs = resolve(info, requested, tokens)
        images = [
            ImageEstimate(original=count, kept=config.keep_count(count))
            for count, config in zip(tokens, configs, strict=True)
        ]
    except ConfigError as error:
        raise VLLMValidationError(f"{KEY}: {error.at_request()}", parameter=KEY) from None
    except MethodFault as error:
        raise HTTPException(500, f"{KEY}: {error}") from None
    return EstimateResponse(images=images, original=sum(tokens), kept=sum(i.kept for i in images))
