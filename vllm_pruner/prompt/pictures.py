"""What images show: each is examined once, and the result remembered by its identity."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from vllm.multimodal.parse import DictEmbeddingItems, ImageEmbeddingItems

from vllm_pruner.picture import UNSEEN, Picture, measure

if TYPE_CHECKING:
    from vllm_pruner.prompt.names import Known

__all__ = ["Pictures"]

_MOST = 1 << 16
"""Images remembered; the least recently used ones are forgotten first."""


class Pictures:
    """A cache of what images show."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, Picture] = OrderedDict()

    def of(self, identity: str, image: Any) -> Picture:
        """Return what an image shows.

        Args:
            identity: identity of its content.
            image: the image as vLLM's processor has it; None if only its name was sent.
        """
        found = self._seen.get(identity)
        if found is None:
            if image is None:
                return UNSEEN
            found = self._seen[identity] = measure(_as_image(image))
            if len(self._seen) > _MOST:
                self._seen.popitem(last=False)
        self._seen.move_to_end(identity)
        return found

    def of_items(
        self, images: Any, known: Sequence[Known] | None, identities: Callable[[], list[str]]
    ) -> list[Picture]:
        """Return what each image of a prompt shows.

        Args:
            images: vLLM's items.
            known: the content of each image, if any of them has a name.
            identities: returns the images' identities; called only if needed.
        """
        if known is not None:
            return [each.picture for each in known]
        if isinstance(images, DictEmbeddingItems | ImageEmbeddingItems):
            return [UNSEEN] * len(images)
        return [self.of(identity, images.get(place)) for place, identity in enumerate(identities())]


def _as_image(image: Any) -> Image.Image:
    """Convert an image, or an array or tensor of one, as vLLM accepts them: channels first or last,
    integers up to 255, or floats up to 255 or up to 1, of any dtype, on any device."""
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, torch.Tensor):
        image = (image.float() if image.is_floating_point() else image).detach().cpu()
    pixels = np.asarray(image)
    if pixels.ndim == 3 and pixels.shape[-1] not in (1, 3, 4):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.dtype != np.uint8:
        are_fractions = np.issubdtype(pixels.dtype, np.floating) and pixels.max(initial=0) <= 1
        scale = 255 if are_fractions else 1
        pixels = np.clip(np.rint(pixels.astype(np.float32) * scale), 0, 255).astype(np.uint8)
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    return Image.fromarray(pixels)
