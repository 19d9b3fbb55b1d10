"""Give HF's image processor the arrays that JPEGs were decoded into (`turbo`), if it takes them.

HF's processors convert Pillow's images to arrays first. Some models have processors of their own
that work on Pillow's images.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from vllm.multimodal.processing import InputProcessingContext

from vllm_pruner.decoded_pixels import keep_pixels, pixels_of
from vllm_pruner.prompt import turbo

if TYPE_CHECKING:
    from vllm.model_executor.models.llava import LlavaMultiModalProcessor

    # Concrete for the checker: super() reaches the model's own processor, not the abstract base.
    _Processor = LlavaMultiModalProcessor
else:
    _Processor = object

__all__ = ["SAMPLES", "ArrayContext", "ArrayImages", "planes"]

logger = logging.getLogger("vllm.vtprune")

SAMPLES = ((37, 501), (448, 336))
"""Widths and heights of the test images: one is enlarged and tall, one is shrunk and wide."""

_GIVES: ContextVar[bool] = ContextVar("vtprune_gives_arrays", default=False)


class ArrayContext(InputProcessingContext):
    """A context, through which every model calls HF's processor, that gives it arrays."""

    def call_hf_processor(
        self, hf_processor: Any, data: Mapping[str, object], kwargs: Mapping[str, object] = {}
    ) -> Any:
        given = _with_arrays(data) if _GIVES.get() else data
        return super().call_hf_processor(hf_processor, given, kwargs)


class ArrayImages(_Processor):
    """Mixin for a `BaseMultiModalProcessor` with a `PrunedInfo` and its `ArrayContext`.

    Change: images with kept pixels reach HF's processor as arrays, if that makes no difference to
    what it returns and no arguments come with them. JPEGs are decoded into arrays in a process that
    has such a model.
    """

    info: Any

    def _apply_hf_processor_main(self, mm_items: Any, hf_kwargs: Mapping[str, object]) -> Any:
        if "image" in mm_items and not hf_kwargs and self._takes_arrays:
            with _giving_arrays():
                return super()._apply_hf_processor_main(mm_items, hf_kwargs)
        return super()._apply_hf_processor_main(mm_items, hf_kwargs)

    @cached_property
    def _takes_arrays(self) -> bool:
        """Whether HF's processor returns the same for arrays. Tested on two images, unless the
        operator turned arrays off."""
        if not self.info.prune_config.byte_pixels:
            return False
        try:
            takes = all(self._is_same(*size) for size in SAMPLES)
        except Exception as error:  # whatever a processor raises at what it does not expect
            logger.debug("vtprune: Pillow decodes the JPEGs of this model: %s", error)
            return False
        if takes:
            turbo.turn_on()
        return takes

    def _is_same(self, width: int, height: int) -> bool:
        drawn = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
        blank = Image.new("RGB", (width, height))  # so that only the kept pixels can be right
        keep_pixels(blank, drawn)
        expected = self._processed(Image.fromarray(drawn))
        with _giving_arrays():
            found = self._processed(blank)
        return expected.keys() == found.keys() and all(
            _is_equal(expected[name], found[name]) for name in expected
        )

    def _processed(self, image: Image.Image) -> Any:
        items = self.info.parse_mm_data({"image": [image]}, validate=False)
        return super()._apply_hf_processor_main(items, {})


def planes(image: Image.Image) -> torch.Tensor:
    """Return an image's pixels, `[3, height, width]`, as HF's image processors convert them."""
    kept = pixels_of(image)
    return torch.from_numpy(np.array(image) if kept is None else kept).permute(2, 0, 1)


@contextmanager
def _giving_arrays() -> Iterator[None]:
    before = _GIVES.set(True)
    try:
        yield
    finally:
        _GIVES.reset(before)


def _with_arrays(data: Mapping[str, object]) -> dict[str, object]:
    """Return the arguments of HF's processor with arrays for images that have kept pixels."""
    images = data.get("images")
    if isinstance(images, list):
        return {**data, "images": [_as_array(image) for image in images]}
    return {**data, **({} if images is None else {"images": _as_array(images)})}


def _as_array(image: Any) -> Any:
    has_kept = isinstance(image, Image.Image) and pixels_of(image) is not None
    return planes(image) if has_kept else image


def _is_equal(expected: Any, found: Any) -> bool:
    if isinstance(expected, torch.Tensor):
        return isinstance(found, torch.Tensor) and torch.equal(expected, found)
    if isinstance(expected, list | tuple):
        return len(expected) == len(found) and all(map(_is_equal, expected, found))
    return bool(np.array_equal(expected, found))
