"""Identify items in vLLM's caches and ours by their content, whatever a client calls them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from vllm_pruner import compat
from vllm_pruner.picture import UNSEEN, Picture
from vllm_pruner.prompt.names import Known, Names, apart
from vllm_pruner.prompt.pictures import Pictures
from vllm_pruner.prompt.refusal import refusal

if TYPE_CHECKING:
    from vllm.multimodal.parse import ImageSize
    from vllm.multimodal.processing import ProcessorInputs

__all__ = ["identified", "identities_in", "sizes_of"]


def identified(
    processor: Any, inputs: ProcessorInputs, names: Names, pictures: Pictures
) -> tuple[ProcessorInputs, dict[str, list[Known]]]:
    """Return the inputs with content identities in place of clients' names, and the items of each
    modality that has names.

    Args:
        processor: vLLM's multimodal processor.
        inputs: the inputs, with the cache that `compat.item_cache` returned or without one.
        names: the names sent so far; those sent now are added.
        pictures: what images show; images sent now are examined, in case they are only named later.

    Raises:
        VLLMValidationError: a 400 for the client: a name without content is not known, or what is
            called an image is none.
    """
    uuids, known = dict(inputs.mm_uuid_items or {}), {}
    for modality, items in inputs.mm_data_items.items():
        called = uuids.get(modality) or ()
        if all(name is None for name in called):
            continue
        sizes = sizes_of(items)
        contents = compat.content_identities(processor, inputs, modality)
        seen = _seen(pictures, modality, contents, items)
        sent = [
            None if identity is None else Known(identity, size, picture)
            for identity, size, picture in zip(contents, sizes, seen, strict=True)
        ]
        found = [
            _look_up(names, modality, name, each, inputs.cache)
            for name, each in zip(called, sent, strict=True)
        ]
        known[modality] = [
            _unknown(modality, place) if each is None else each for place, each in enumerate(found)
        ]
        uuids[modality] = [each.identity for each in known[modality]]
    return dataclasses.replace(inputs, mm_uuid_items=uuids), known


def identities_in(prompt: Any) -> list[str]:
    """Return the identities of the images and videos in an engine's input, each once."""
    hashes = prompt.get("mm_hashes", {}) if isinstance(prompt, dict) else {}
    return [name for name in dict.fromkeys(each for of in hashes.values() for each in of) if name]


def _seen(
    pictures: Pictures, modality: str, contents: Sequence[str | None], items: Any
) -> list[Picture]:
    """Return what each item shows, if it is an image with content."""
    if modality != "image" or not hasattr(items, "get_image_size"):
        return [UNSEEN] * len(contents)
    return [
        UNSEEN if identity is None else pictures.of(identity, items.get(place))
        for place, identity in enumerate(contents)
    ]


def sizes_of(items: Any) -> list[ImageSize | None]:
    """Return the size of each image in pixels; None for items without a size or only a name.

    Raises:
        VLLMValidationError: a 400 for the client: an image is none. The part `image_pil`, which is
            for Python, brings any JSON here over HTTP.
    """
    if not hasattr(items, "get_image_size"):
        return [None] * len(items)
    return [_size_of(items, place) for place in range(len(items))]


def _size_of(items: Any, place: int) -> ImageSize | None:
    image = items.get(place)
    if image is None:
        return None
    if not isinstance(image, Image.Image | np.ndarray | torch.Tensor):
        raise refusal(
            f"image {place + 1} is of the type {type(image).__name__}; allowed: a picture, over "
            "HTTP in image_url",
            parameter="image",
        )
    size: ImageSize = items.get_image_size(place)
    return size


def _look_up(
    names: Names, modality: str, called: str | None, sent: Known | None, cache: Any
) -> Known | None:
    """Return the content that is sent, named or not, else the content that the name refers to."""
    name, salt = ("", "") if called is None else apart(called)
    if sent is not None and name:
        names.note(modality, name, sent)
    known = sent
    if sent is None and cache is not None:
        known = names.find(modality, name)
    if known is None or not salt:
        return known
    salted = f"{known.identity}\n{salt}".encode()
    other = hashlib.blake2b(salted, digest_size=32).hexdigest()
    if sent is None and not compat.known_as(cache, known.identity, other):
        return None
    return Known(other, known.size, known.picture)


def _unknown(modality: str, place: int) -> Known:
    raise refusal(
        f"uuid of {modality} {place + 1} refers to nothing that this server still has, or to "
        "different contents; allowed: the content, with or without a uuid",
        parameter="uuid",
    )
