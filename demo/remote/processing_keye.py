"""The processors that Kwai publishes beside Keye-VL's weights, in what vLLM asks of them:
transformers has none of these names, so they are loaded from the checkpoint
(`--trust-remote-code`). vLLM writes the tokens itself."""

import math

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature, ProcessorMixin
from transformers.image_processing_utils import ImageProcessingMixin
from transformers.processing_utils import ImagesKwargs

HALF = (0.5, 0.5, 0.5)


class KeyeImageProcessor(ImageProcessingMixin):
    """Cuts frames of one size into normalised patches `[patches, 3, P, P]` in raster order."""

    valid_kwargs = ImagesKwargs
    model_input_names = ("pixel_values", "image_grid_thw")

    def __init__(
        self,
        patch_size=14,
        merge_size=2,
        temporal_patch_size=1,
        min_pixels=56 * 56,
        max_pixels=28 * 28 * 1280,
        image_mean=HALF,
        image_std=HALF,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.patch_size, self.merge_size = patch_size, merge_size
        self.temporal_patch_size = temporal_patch_size
        self.size = {"min_pixels": min_pixels, "max_pixels": max_pixels}
        self.image_mean, self.image_std = image_mean, image_std

    def cut(self, frames, size):
        """Return the patches of frames, and the grid."""
        side, edge = self.patch_size, self.patch_size * self.merge_size
        height, width = smart_size(frames[0].height, frames[0].width, edge, size)
        resized = [frame.resize((width, height), Image.Resampling.BICUBIC) for frame in frames]
        pixels = np.stack([np.asarray(frame, dtype=np.float32) for frame in resized])
        pixels = (pixels / 255 - np.array(self.image_mean)) / np.array(self.image_std)
        rows, columns = height // side, width // side
        cells = torch.from_numpy(pixels).float().view(len(frames), rows, side, columns, side, 3)
        patches = cells.permute(0, 1, 3, 5, 2, 4).reshape(-1, 3, side, side)
        return patches, [len(frames), rows, columns]


def smart_size(height, width, edge, size):
    """As Qwen-VL's, but for what is less than a token wide."""
    if height < edge:
        height, width = edge, round(width * edge / height)
    if width < edge:
        height, width = round(height * edge / width), edge
    if max(height, width) / min(height, width) > 200:
        raise ValueError("a picture may be 200 times as long as wide")
    rows, columns = (round(length / edge) for length in (height, width))
    if rows * columns * edge**2 > size["max_pixels"]:
        scale = math.sqrt(height * width / size["max_pixels"])
        rows, columns = (math.floor(length / scale / edge) for length in (height, width))
    elif rows * columns * edge**2 < size["min_pixels"]:
        scale = math.sqrt(size["min_pixels"] / (height * width))
        rows, columns = (math.ceil(length * scale / edge) for length in (height, width))
    return rows * edge, columns * edge


class KeyeProcessor(ProcessorMixin):
    """Returns the patches of pictures and of videos."""

    image_token, video_token = "<|image_pad|>", "<|video_pad|>"

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None, **kwargs):
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    def __call__(self, text, images=(), videos=(), min_pixels=None, max_pixels=None, **kwargs):
        size = {**self.image_processor.size, **(kwargs.get("size") or {})}
        said = {"min_pixels": min_pixels, "max_pixels": max_pixels}
        size |= {name: value for name, value in said.items() if value is not None}
        made = dict(self.tokenizer(text, return_tensors="pt"))
        if images:
            cut = [self.image_processor.cut([image.convert("RGB")], size) for image in images]
            made["pixel_values"] = torch.cat([patches for patches, _ in cut])
            made["image_grid_thw"] = torch.tensor([grid for _, grid in cut])
        if videos:
            films = [[Image.fromarray(np.asarray(frame)) for frame in video] for video in videos]
            cut = [self.image_processor.cut(film, size) for film in films]
            made["pixel_values_videos"] = torch.cat([patches for patches, _ in cut])
            made |= self.of_videos([grid for _, grid in cut])
        return BatchFeature(made)

    def of_videos(self, grids):
        return {"video_grid_thw": torch.tensor(grids)}


class KeyeVL1_5Processor(KeyeProcessor):
    """Frames of a video are pictures of sizes of their own."""

    frame_token, fast_start, fast_end = "<|frame|>", "<|fast_start|>", "<|fast_end|>"

    def of_videos(self, grids):
        frames = [[1, rows, columns] for count, rows, columns in grids for _ in range(count)]
        counts = torch.tensor([count for count, _, _ in grids])
        return {"video_grid_thw": torch.tensor(frames), "num_frames": counts}
