"""The processor that Baidu publishes beside ERNIE-4.5-VL's weights, in what vLLM asks of it:
transformers has another one, which vLLM does not take, so it is loaded from the checkpoint
(`--trust-remote-code`)."""

import math

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature, ProcessorMixin
from transformers.image_processing_utils import ImageProcessingMixin
from transformers.processing_utils import ImagesKwargs

LONGEST = 200
"""Largest ratio of sides; a picture that is longer is made shorter."""


class ErnieImageProcessor(ImageProcessingMixin):
    """Cuts frames of one size into patches `[patches, 3 * P * P]` of bytes: vLLM normalises them.
    The patches of a token are one after another, tokens in raster order."""

    valid_kwargs = ImagesKwargs
    model_input_names = ("images", "grid_thw")

    def __init__(
        self,
        patch_size=14,
        merge_size=2,
        min_pixels=56 * 56,
        max_pixels=28 * 28 * 1280,
        rescale_factor=1 / 255,
        image_mean=(0.48145466, 0.4578275, 0.40821073),
        image_std=(0.26862954, 0.26130258, 0.27577711),
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.patch_size, self.merge_size = patch_size, merge_size
        self.size = {"min_pixels": min_pixels, "max_pixels": max_pixels}
        self.rescale_factor, self.image_mean, self.image_std = rescale_factor, image_mean, image_std

    def cut(self, frames, least, most):
        """Return the patches of frames, and the grid."""
        side, merge = self.patch_size, self.merge_size
        sizes = smart_size(frames[0].height, frames[0].width, side * merge, least, most)
        resized = [frame.resize(sizes[::-1], Image.Resampling.BICUBIC) for frame in frames]
        pixels = torch.from_numpy(np.stack([np.asarray(frame) for frame in resized]))
        rows, columns = (size // (side * merge) for size in sizes)
        cells = pixels.view(len(frames), rows, merge, side, columns, merge, side, 3)
        patches = cells.permute(0, 1, 4, 2, 5, 7, 3, 6).reshape(-1, 3 * side**2)
        return patches, [len(frames), rows * merge, columns * merge]


def smart_size(height, width, edge, least, most):
    """As Qwen-VL's, but for what is too long."""
    if max(height, width) > LONGEST * min(height, width):
        short = max(edge, round(min(height, width) / edge) * edge)
        long = math.floor(short * LONGEST / edge) * edge
        height, width = (long, short) if height > width else (short, long)
    rows, columns = (max(1, round(size / edge)) for size in (height, width))
    if rows * columns * edge**2 > most:
        scale = math.sqrt(height * width / most)
        rows, columns = (math.floor(size / scale / edge) for size in (height, width))
    elif rows * columns * edge**2 < least:
        scale = math.sqrt(least / (height * width))
        rows, columns = (math.ceil(size * scale / edge) for size in (height, width))
    return rows * edge, columns * edge


class ErnieProcessor(ProcessorMixin):
    """Returns the pixels of pictures, then of videos; vLLM writes the tokens itself."""

    def __init__(
        self,
        image_processor=None,
        tokenizer=None,
        chat_template=None,
        spatial_conv_size=2,
        temporal_conv_size=2,
        image_min_pixels=4 * 28 * 28,
        image_max_pixels=6177 * 28 * 28,
        video_min_pixels=299 * 28 * 28,
        video_max_pixels=1196 * 28 * 28,
        **kwargs,
    ):
        self.spatial_conv_size, self.temporal_conv_size = spatial_conv_size, temporal_conv_size
        self.image_min_pixels, self.image_max_pixels = image_min_pixels, image_max_pixels
        self.video_min_pixels, self.video_max_pixels = video_min_pixels, video_max_pixels
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    def __call__(self, text, images=(), videos=(), **kwargs):
        words = self.tokenizer(text, return_tensors="pt")
        cut = self.image_processor.cut
        parts = [
            cut([image.convert("RGB")], self.image_min_pixels, self.image_max_pixels)
            for image in images
        ]
        parts += [
            cut(list(map(Image.fromarray, video)), self.video_min_pixels, self.video_max_pixels)
            for video in videos
        ]
        if not parts:
            return BatchFeature({**words, "images": None, "grid_thw": None})
        pixels, grids = zip(*parts, strict=True)
        return BatchFeature({**words, "images": torch.cat(pixels), "grid_thw": torch.tensor(grids)})
