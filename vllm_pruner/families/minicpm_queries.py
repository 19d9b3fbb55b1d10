"""The whole picture and the slices of images of a MiniCPM-V with a resampler, and their tokens.

The processor cuts a picture of more than `scale_resolution` squared pixels into at most
`max_slice_nums` slices, by the grid that suits its shape best. The whole picture and each slice
become `image_feature_size` tokens, whatever their size in patches.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch.nn.functional import pad
from vllm.multimodal.parse import ImageSize

from vllm_pruner import compat
from vllm_pruner.families import minicpm_slices
from vllm_pruner.families.unsuited import check_counted
from vllm_pruner.layout.query_slices import QuerySlices
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.tower import EncoderImage
from vllm_pruner.worker.resampler_tower import SlicedImage

__all__ = ["VERSIONS", "images", "largest", "layout", "seen", "size_with_most"]

VERSIONS = ((2, 6), (4, 0), (4, 5))
"""Of the models. Older ones have another prompt, and 2.0 another tower."""

_CUTTING = ("max_slice_nums", "scale_resolution", "patch_size", "slice_mode", "image_feature_size")
"""Arguments by which the processor cuts a picture. vLLM counts by those of the server alone."""


def largest(info: Any) -> QuerySlices:
    """Return the layout with which vLLM profiles memory; see `Family.largest`.

    Raises:
        ConfigError: this vLLM is 0.31, or the model is of another version, or its parts disagree.
    """
    if not compat.at_least((0, 32)):
        raise ConfigError("architecture is MiniCPMV; allowed: vLLM 0.32 or newer")
    if (version := info.get_model_version()) not in VERSIONS:
        said, *allowed = (".".join(map(str, each)) for each in (version, *VERSIONS))
        raise ConfigError(
            f"version of a model of the architecture MiniCPMV is {said}; allowed: "
            f"{', '.join(allowed)}"
        )
    found, queries = layout(info, *size_with_most(info), {}), info.get_hf_config().query_num
    if found.base != queries:
        raise ConfigError(
            f"image_feature_size of the image processor is {found.base}; allowed: {queries}, the "
            "model's query_num"
        )
    return found


def size_with_most(info: Any) -> tuple[int, int]:
    """Return height and width of an image with as many slices as there may be."""
    processor = info.get_image_processor()
    return processor.scale_resolution * processor.max_slice_nums, processor.scale_resolution


def layout(info: Any, height: int, width: int, mm_kwargs: Mapping[str, object]) -> QuerySlices:
    """Return the layout of an image as vLLM counts it; see `Family.layout`.

    Raises:
        ConfigError: the request would have it cut otherwise.
    """
    processor = info.get_image_processor()
    if mm_kwargs:
        check_counted(processor, info.ctx.get_merged_mm_kwargs(mm_kwargs), _CUTTING)
    grid = info.get_sliced_grid(ImageSize(width=width, height=height))
    return QuerySlices(processor.image_feature_size, 1 + (prod(grid) if grid else 0))


def images(hf_config: Any, image_input: Any) -> list[EncoderImage]:
    """Return the images of a batch; see `Family.images`."""
    each = zip(image_input["pixel_values"], image_input["tgt_sizes"], strict=True)
    return [
        SlicedImage(
            _stacked(slices),
            QuerySlices(hf_config.query_num, len(slices)),
            tuple((rows, columns) for rows, columns in sizes.tolist()),  # on the CPU already
        )
        for slices, sizes in each
    ]


def _stacked(slices: list[torch.Tensor]) -> torch.Tensor:
    """Return `[slices, 3, P, patches * P]`, the shorter ones padded."""
    most = max(piece.shape[-1] for piece in slices)
    return torch.stack([pad(piece, (0, most - piece.shape[-1])) for piece in slices])


def seen(hf_config: Any, item: Mapping[str, Any]) -> torch.Tensor:
    """Return the whole picture and the slices, all as large as it; see `Family.seen`."""
    (slices,) = item["pixel_values"]
    return minicpm_slices.seen(hf_config, {**item, "pixel_values": _stacked(slices).unsqueeze(0)})
