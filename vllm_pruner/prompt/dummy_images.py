"""The images that vLLM profiles memory with, of models whose squares have fewer tokens than other
images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image
    from vllm.config.multimodal import MultiModalDummyOptions

__all__ = ["largest_images"]


def largest_images(
    builder: Any, mm_counts: Mapping[str, int], mm_options: MultiModalDummyOptions | None
) -> list[Image.Image]:
    """Return images of the size that `get_image_size_with_most_features` names.

    Args:
        builder: vLLM's `BaseDummyInputsBuilder`, with an `info` that has that method.
        mm_counts: how many are wanted, by modality.
        mm_options: what the operator says of each modality; None from an older vLLM.
    """
    size = builder.info.get_image_size_with_most_features()
    images: list[Image.Image] = builder._get_dummy_images(
        width=size.width,
        height=size.height,
        num_images=mm_counts.get("image", 0),
        overrides=mm_options.get("image") if mm_options else None,
    )
    return images
