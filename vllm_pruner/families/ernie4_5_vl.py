"""ERNIE-4.5-VL: `Ernie4_5_VLMoeForConditionalGeneration`, with experts of text and of vision.

Follows `vllm/model_executor/models/ernie45_vl.py` of vLLM 0.32. An image of any resolution is one
grid of tokens, each 2 x 2 patches; a video is a sequence of such grids, each of two frames; see
`ernie_tower` and `mrope`. One token stands for both. The decoder tells visual tokens, and the marks
around them, from text by their ids, so a kept token goes to the experts that it went to.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import prod
from typing import Any

import torch
from vllm.model_executor.models.ernie45_vl import (
    Ernie4_5_VLDummyInputsBuilder,
    Ernie4_5_VLMoeForConditionalGeneration,
    Ernie4_5_VLProcessingInfo,
    Ernie4_5VLMultiModalProcessor,
    smart_resize,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.parse import ImageSize

from vllm_pruner.families.glm_grid import longest_of
from vllm_pruner.families.merging import MERGING
from vllm_pruner.families.qwen_grid import images, item_layout
from vllm_pruner.families.unsuited import check_shrinking
from vllm_pruner.family import Family, Videos
from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.prompt.asked import IMAGE, VIDEO
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.prompt.places import check_marks
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.prompt.refusal import refusal
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.tower import EncoderImage
from vllm_pruner.worker.captured_model import CapturedModel
from vllm_pruner.worker.ernie_tower import FRAMES, CapturedErnieTower
from vllm_pruner.worker.mrope import MRopeModel

__all__ = ["ERNIE4_5_VL", "PrunedErnie4_5VL"]

_BOUNDS = ("image_min_pixels", "image_max_pixels")
"""Fewest and most pixels of an image, in the checkpoint's processor: not the `size` of its image
processor, by which vLLM alone counts."""

_SIGNS = {IMAGE: "<|image@placeholder|>", VIDEO: "<|video@placeholder|>"}
"""What stands for an image or a video in a prompt, before its tokens are there."""


def _edge(info: Any) -> int:
    """Return the side of a token in pixels."""
    vision = info.get_hf_config().vision_config
    return int(vision.patch_size * vision.spatial_merge_size)


def _pixels(info: Any, mm_kwargs: Mapping[str, object]) -> list[int]:
    """Return the fewest and the most pixels of an image.

    Raises:
        ConfigError: the processor is another one, or names no number of pixels.
    """
    processor = info.get_hf_processor(**mm_kwargs)
    if missing := [name for name in _BOUNDS if not hasattr(processor, name)]:
        raise ConfigError(
            f"processor is {type(processor).__name__}, which has no {missing[0]}; allowed: the "
            "checkpoint's own, with --trust-remote-code"
        )
    bounds: list[Any] = [getattr(processor, name) for name in _BOUNDS]
    if not all(isinstance(each, int) and each > 0 for each in bounds):
        raise ConfigError(f"{' and '.join(_BOUNDS)} are {bounds}; allowed: whole numbers from 1")
    return bounds


def largest(info: Any) -> GridLayout:
    """Return the layout with which vLLM profiles memory; see `Family.largest`. vLLM assumes a
    square, which may have fewer tokens than an oblong."""
    hf_config = info.get_hf_config()
    joins = hf_config.temporal_conv_size if hf_config.use_temporal_conv else 1
    if joins != FRAMES:
        raise ConfigError(f"the resampler joins {joins} frames to one; allowed: {FRAMES}")
    return longest_of(_pixels(info, {})[1] // _edge(info) ** 2)


def layout(info: Any, height: int, width: int, mm_kwargs: Mapping[str, object]) -> GridLayout:
    """Return the layout of an image after the processor has resized it; see `Family.layout`."""
    edge = _edge(info)
    rows, columns = smart_resize(height, width, edge, *_pixels(info, mm_kwargs))
    return GridLayout(rows // edge, columns // edge)


def seen(hf_config: Any, item: Mapping[str, Any]) -> torch.Tensor:
    """Reassemble the picture from its patches, `[3, P, P]` each; see `Family.seen`."""
    vision, grid = hf_config.vision_config, item_layout(hf_config, item)
    size, merge = vision.patch_size, vision.spatial_merge_size
    patches = item["pixel_values"].view(grid.rows, grid.columns, merge, merge, 3, size, size)
    # rows, merge, P and columns, merge, P become height and width
    picture: torch.Tensor = patches.permute(4, 0, 2, 5, 1, 3, 6)
    return picture.reshape(1, 3, grid.rows * merge * size, grid.columns * merge * size)


def video_layout(hf_config: Any, item: Mapping[str, Any]) -> GridLayout:
    """Return the layout of a processed video; see `Videos.item_layout`."""
    return _of_frames(hf_config, item["video_grid_thw"].flatten().tolist())


def videos(hf_config: Any, video_input: Any) -> list[EncoderImage]:
    """Return the videos of a batch; see `Videos.items`."""
    grids = video_input["video_grid_thw"].tolist()  # on the CPU already
    pixels = video_input["pixel_values_videos"].split([prod(grid) for grid in grids])
    return [
        EncoderImage(patches, _of_frames(hf_config, grid))
        for patches, grid in zip(pixels, grids, strict=True)
    ]


def _of_frames(hf_config: Any, grid_thw: list[int]) -> GridLayout:
    merge = hf_config.vision_config.spatial_merge_size
    frames, rows, columns = grid_thw
    return GridLayout(rows // merge, columns // merge, frames // FRAMES, joined=FRAMES)


ERNIE4_5_VL = Family(
    "ernie4_5_vl",
    largest,
    layout,
    images,
    CapturedErnieTower,
    seen,
    partial(check_shrinking, smaller="image_max_pixels"),
    captured=True,
    captured_unasked=False,
    encodes_some=True,
    stock_captured=False,  # vLLM's has graphs, but its engine ends at a picture that fits none
    item_layout=item_layout,
    image_token="im_patch_id",
    videos=Videos(video_layout, videos, token="im_patch_id"),
    **MERGING,
)


class PrunedErnie4_5VLInfo(PrunedInfo, Ernie4_5_VLProcessingInfo):
    """`Ernie4_5_VLProcessingInfo` with settings; see `PrunedInfo` for the changes."""

    family = ERNIE4_5_VL
    mark_words = (
        *("<|IMAGE_START|>", "<|IMAGE_END|>", "<|VIDEO_START|>", "<|VIDEO_END|>"),
        *_SIGNS.values(),
    )

    @property
    def image_sign(self) -> int:
        return self.get_tokenizer().get_vocab()[_SIGNS[IMAGE]]

    @property
    def video_sign(self) -> int:
        return self.get_tokenizer().get_vocab()[_SIGNS[VIDEO]]

    def get_image_size_with_most_features(self) -> ImageSize:
        """Return the size of vLLM's dummy images, which has the `largest` layout."""
        most, side = largest(self), _edge(self)
        return ImageSize(width=most.columns * side, height=most.rows * side)


class PrunedErnie4_5VLProcessor(PrunedProcessor, Ernie4_5VLMultiModalProcessor):
    """`Ernie4_5VLMultiModalProcessor` with fewer placeholders; see `PrunedProcessor`.

    Own changes:
    - a video of an odd number of frames is a 400: vLLM's engine ends at it, pruned or not;
    - so is the spelled placeholder in a prompt with pruned items, whose positions the model finds
      by it: what stands for an item in a prompt is another token.
    """

    def _get_hf_mm_inputs(self, *args: Any, **kwargs: Any) -> Any:
        made: Any = super()._get_hf_mm_inputs(*args, **kwargs)
        for video in made.hf_data.get("videos") or ():
            frames = len(video[0] if isinstance(video, tuple) else video)
            if frames % FRAMES:
                raise refusal(
                    f"a video has {frames} frames, which this model joins two by two; allowed: an "
                    "even number, such as by num_frames in media_io_kwargs",
                    parameter="messages",
                )
        return made

    def _check_prompt(self, asked: Any, output: Any) -> None:
        super()._check_prompt(asked, output)
        token = self.info.image_token
        check_marks(output, {token: self.info.get_tokenizer().decode([token])}, [IMAGE, VIDEO])


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedErnie4_5VLProcessor,
    info=PrunedErnie4_5VLInfo,
    dummy_inputs=Ernie4_5_VLDummyInputsBuilder,
)
class PrunedErnie4_5VL(MRopeModel, CapturedModel, Ernie4_5_VLMoeForConditionalGeneration):
    """vLLM's ERNIE-4.5-VL, keeping the visual tokens that matter; see `MRopeModel` and
    `CapturedModel`."""

    family = ERNIE4_5_VL
