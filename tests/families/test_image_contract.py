"""What every family makes of the pixels that vLLM's processor hands to the engine, over all
checkpoints that we have. What the model makes of them is tested in `tests/server`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from contract import SIZES, batched, is_served, processed, processed_images
from PIL import Image
from torch.nn.functional import pad, unfold

from vllm_pruner.families.nemotron_pictures import PICTURES
from vllm_pruner.layout.crop_layout import CropLayout
from vllm_pruner.settings.keys import BYTES

pytestmark = pytest.mark.server


def test_a_batch_becomes_images_with_the_layouts_of_their_sizes(processor: Any) -> None:
    """Of images that were preprocessed together, and so padded to as many crops."""
    family, hf_config = processor.info.family, processor.info.get_hf_config()
    sizes = [size for size in SIZES[:6] if is_served(family, size)]
    items = processed_images(processor, {"tokens": 4}, *sizes)["mm_kwargs"]["image"]
    batch = batched(items)
    if "image_num_patches" in batch:
        batch["num_patches"] = batch["image_num_patches"]  # as vLLM's input calls it
    if "pixel_values_flat" in batch:
        batch[PICTURES] = batch["pixel_values_flat"]  # as our class calls Nemotron's
    if "images_spatial_crop" in batch:
        batch["data"] = batch["pixel_values"]  # the same of DeepSeek-OCR's
    if BYTES in batch:
        batch["pixel_values"] = batch.pop(BYTES).movedim(-1, -3)
    images = family.images(hf_config, batch)
    assert [image.layout for image in images] == [
        family.layout(processor.info, *size, {}) for size in sizes
    ]
    for item, image in zip(items, images, strict=True):
        given = _pixels(item)
        if family.name == "lightonocr":  # whose processor leaves it to the tower to cut patches
            given = unfold(given.view(1, *given.shape[-3:]), 14, stride=14)[0].T
        given = given.reshape(-1, *image.pixels.shape[1:])
        if family.name in ("paddleocr_vl", "lightonocr", "keye", "keye_vl1_5"):
            given = given[_token_by_token(image.layout)]
        assert torch.equal(image.pixels, given[: len(image.pixels)])
        if isinstance(image.layout, CropLayout):
            assert len(image.pixels) == image.layout.crops <= len(given)
        else:
            assert len(image.pixels) == len(given)


def _token_by_token(layout: Any) -> list[int]:
    """The patches of each token, two rows of two, in a picture's raster."""
    tokens = [(row, column) for row in range(layout.rows) for column in range(layout.columns)]
    width = 2 * layout.columns
    return [
        (2 * row + down) * width + 2 * column + across
        for row, column in tokens
        for down in (0, 1)
        for across in (0, 1)
    ]


def _pixels(item: Any) -> torch.Tensor:
    """All that vLLM's processor made of an image's pixels, colours first."""
    (given,) = (
        field.data.movedim(-1, -3) if name == BYTES else field.data
        for name, field in item.items()
        if name in (BYTES, "images", "patches") or name.startswith("pixel_values")
    )
    if isinstance(given, list):  # slices of sizes of their own
        widest = max(piece.shape[-1] for piece in given)
        return torch.stack([pad(piece, (0, widest - piece.shape[-1])) for piece in given])
    return given


@pytest.mark.parametrize("size", [(336, 336), (448, 280)], ids=str)
def test_what_a_person_sees_is_the_picture_that_was_sent(
    processor: Any, size: tuple[int, int]
) -> None:
    """The first crop is the whole picture, possibly cut to a square, in the processor's colours."""
    info = processor.info
    if info.family.name == "deepseek_ocr" and size[0] != size[1]:
        pytest.skip("padded to a square: test_deepseek_ocr")
    column = np.linspace(0, 255, size[1]).astype(np.uint8)
    picture = np.stack([np.tile(column, (size[0], 1))] * 3, axis=2)
    picture[: size[0] // 2, :, 0] = 0
    output = processed(processor, {"tokens": 4}, "image", [Image.fromarray(picture)])
    (item,) = output["mm_kwargs"]["image"]
    crop = info.seen(batched([item]))[0]
    if crop.is_floating_point():
        for color, mean, std in zip(crop, *info.normalisation(), strict=True):
            color.mul_(std).add_(mean)
    else:
        crop = crop / 255
    red, green, _ = crop
    height, width = red.shape
    assert float(red[: height // 2 - 2].abs().max()) < 0.02
    lower, upper = green[height // 2 + 2 :], green[: height // 2 - 2]
    assert torch.allclose(upper.mean(dim=0), lower.mean(dim=0), atol=0.02)
    assert bool((lower.mean(dim=0).diff() > -0.02).all()), "columns keep their order"
    assert float(lower[:, -1].mean() - lower[:, 0].mean()) > 0.5
