"""Send images to the engine as bytes instead of floats, if the tower then gets the same bits.

A mixin for vLLM's multimodal processors. If HF's processor only resizes, crops and normalises, the
first two steps are done here with HF's own functions but without the overhead of its argument
handling; any other processor is called without its last step. The device does the last step
(`vllm_pruner.byte_normalizer`). If a request or the operator passes arguments to HF's processor, or
something other than images, vLLM's own path is taken.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from transformers.feature_extraction_utils import BatchFeature

from vllm_pruner.byte_normalizer import ByteNormalizer, normalises
from vllm_pruner.prompt.array_images import SAMPLES, planes
from vllm_pruner.settings.keys import BYTES

if TYPE_CHECKING:
    from vllm.model_executor.models.llava import LlavaMultiModalProcessor

    # Concrete for the checker: super() reaches the model's own processor, not the abstract base.
    _Processor = LlavaMultiModalProcessor
else:
    _Processor = object

__all__ = ["BytePixels"]

logger = logging.getLogger("vllm.vtprune")

_PIXELS = "pixel_values"
_KNOWN = frozenset({"text", "truncation"})
"""Arguments of HF's processor that do not affect images."""


class BytePixels(_Processor):
    """Mixin for a `BaseMultiModalProcessor` with a `PrunedInfo`.

    Change: in a family with `byte_pixels`, images have a field of bytes in place of
    `pixel_values`, unless the operator turned that off.
    """

    info: Any

    def _call_hf_processor(self, *args: Any, **kwargs: Any) -> BatchFeature:
        if len(args) == 2 and not kwargs and (images := self._plain(*args)):
            return self._as_bytes(images, *args)
        return super()._call_hf_processor(*args, **kwargs)

    def _get_mm_fields_config(self, *args: Any, **kwargs: Any) -> Any:
        config = super()._get_mm_fields_config(*args, **kwargs)
        return {**config, BYTES: config[_PIXELS]} if self.info.family.byte_pixels else config

    def _plain(self, hf_data: Any, hf_kwargs: Any) -> list[Image.Image]:
        """Return the images of a call if all can be sent as bytes, else an empty list."""
        if not self._gives_equal_bits or set(hf_data) - _KNOWN != {"images"}:
            return []
        if set(hf_kwargs) - _KNOWN or self.info.ctx.get_mm_config().mm_processor_kwargs:
            return []
        images = hf_data["images"]
        if not all(isinstance(image, Image.Image) and image.mode == "RGB" for image in images):
            return []
        # HF pads images of fewer crops with zeros after its last step.
        return [] if len(images) > 1 and not self.info.family.one_layout else list(images)

    @cached_property
    def _image_processor(self) -> Any:
        return self.info.get_hf_processor().image_processor

    @cached_property
    def _is_plain(self) -> bool:
        return is_plain(self._image_processor)

    @cached_property
    def _gives_equal_bits(self) -> bool:
        """Whether the tower gets the same bits either way. Tested on two images; a failure is
        logged."""
        if not (self.info.family.byte_pixels and self.info.prune_config.byte_pixels):
            return False
        known = normalises(self._image_processor)
        if not (known and all(self._is_equal(*size) for size in SAMPLES)):
            kind = type(self._image_processor).__name__
            logger.warning(
                "vtprune: images are sent as floats, because %s does not give the same bits from "
                "bytes",
                kind,
            )
            return False
        return True

    def _is_equal(self, width: int, height: int) -> bool:
        picture = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
        images, text = [Image.fromarray(picture)], self._get_hf_mm_text({"image": 1})
        data = {"images": images, **({} if text is None else {"text": text})}
        floats = super()._call_hf_processor(data, {})[_PIXELS]
        as_bytes = self._as_bytes(images, data, {})[BYTES]
        normalize = ByteNormalizer(self._image_processor, floats.dtype, torch.device("cpu"))
        return torch.equal(normalize(as_bytes), floats)

    def _as_bytes(self, images: Sequence[Image.Image], hf_data: Any, hf_kwargs: Any) -> Any:
        """Return the output of HF's processor, with bytes in place of floats."""
        if self._is_plain:
            return BatchFeature({BYTES: cropped(self._image_processor, images)})
        kwargs = {**hf_kwargs, "do_rescale": False, "do_normalize": False}
        output = dict(super()._call_hf_processor(hf_data, kwargs))
        return BatchFeature({BYTES: output.pop(_PIXELS).movedim(-3, -1).contiguous(), **output})


def is_plain(image_processor: Any) -> bool:
    """Return whether HF's image processor only resizes, crops and normalises."""
    from transformers.image_processing_backends import TorchvisionBackend

    own = ("_preprocess", "resize", "center_crop", "process_image", "rescale_and_normalize")
    kind = type(image_processor)
    inherits = all(getattr(kind, name) is getattr(TorchvisionBackend, name) for name in own)
    return inherits and not image_processor.do_pad


def cropped(image_processor: Any, images: Sequence[Image.Image]) -> torch.Tensor:
    """Return images resized and cropped as by a plain image processor: uint8 `[images, height,
    width, 3]`."""
    rows = []
    for image in images:
        pixels = planes(image).unsqueeze(0)
        if image_processor.do_resize:
            pixels = image_processor.resize(
                pixels, size=image_processor.size, resample=image_processor.resample
            )
        if image_processor.do_center_crop:
            pixels = image_processor.center_crop(pixels, image_processor.crop_size)
        rows.append(pixels.permute(0, 2, 3, 1))
    return (torch.cat(rows) if len(rows) > 1 else rows[0]).contiguous()
