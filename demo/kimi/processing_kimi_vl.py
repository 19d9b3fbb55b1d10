"""The processor that Kimi-VL's authors publish beside their weights, in what vLLM asks of it:
transformers has none of this name, so it is loaded from the checkpoint (`--trust-remote-code`)."""

import math

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature, ProcessorMixin
from transformers.image_processing_utils import ImageProcessingMixin
from transformers.processing_utils import ImagesKwargs

LONGEST = 512
"""Positions of a side that the tower has; a picture has to stay below."""


class KimiVLImageProcessor(ImageProcessingMixin):
    """Keeps a picture's resolution if it is not too large, pads it to whole tokens and cuts it into
    patches `[patches, 3, P, P]`, in raster order."""

    valid_kwargs = ImagesKwargs
    model_input_names = ("pixel_values", "image_grid_hws")

    def __init__(
        self,
        patch_size=14,
        merge_kernel_size=(2, 2),
        in_token_limit=4096,
        image_mean=(0.5, 0.5, 0.5),
        image_std=(0.5, 0.5, 0.5),
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.patch_size, self.merge_kernel_size = patch_size, list(merge_kernel_size)
        self.in_token_limit = in_token_limit
        self.image_mean, self.image_std = image_mean, image_std

    def __call__(self, images, return_tensors=None, **kwargs):
        images = images if isinstance(images, (list, tuple)) else [images]
        patches, grids = zip(*(self._patches(image) for image in images), strict=True)
        made = {"pixel_values": torch.cat(patches), "image_grid_hws": np.array(grids)}
        return BatchFeature(made, tensor_type=return_tensors)

    def _patches(self, image):
        side = self.patch_size
        pixels = self._padded(self._small_enough(image.convert("RGB")))
        height, width = pixels.shape[:2]
        grid = height // side, width // side
        if max(grid) >= LONGEST:
            raise ValueError(f"a side of the picture is {max(grid)} patches; below {LONGEST} fit")
        normalised = (pixels / 255 - np.array(self.image_mean)) / np.array(self.image_std)
        cut = torch.tensor(normalised, dtype=torch.float32).view(grid[0], side, grid[1], side, 3)
        return cut.permute(0, 2, 4, 1, 3).flatten(0, 1).contiguous(), grid

    def _small_enough(self, image):
        """In patches, as whole ones are counted before any padding."""
        patches = (image.width // self.patch_size) * (image.height // self.patch_size)
        if patches <= self.in_token_limit:
            return image
        scale = math.sqrt(self.in_token_limit / patches)
        size = int(image.width * scale), int(image.height * scale)
        return image.resize(size, Image.Resampling.BICUBIC)

    def _padded(self, image):
        pixels = np.asarray(image)
        across, along = (self.patch_size * merged for merged in self.merge_kernel_size)
        below, right = -pixels.shape[0] % across, -pixels.shape[1] % along
        return np.pad(pixels, ((0, below), (0, right), (0, 0)))


class KimiVLProcessor(ProcessorMixin):
    """Writes a token for every merged patch."""

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None, **kwargs):
        self.image_token = "<|media_pad|>"
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    def __call__(self, images=None, text=None, return_tensors=None, **kwargs):
        texts = [text] if isinstance(text, str) else list(text or [""])
        pictures = self.image_processor(images, return_tensors=return_tensors) if images else {}
        counts = [self._tokens(grid) for grid in pictures.get("image_grid_hws", ())]
        texts = [self._written(text, counts) for text in texts]
        words = self.tokenizer(texts, return_tensors=return_tensors)
        return BatchFeature({**words, **pictures}, tensor_type=return_tensors)

    def _tokens(self, grid):
        height, width = self.image_processor.merge_kernel_size
        return int(grid[0]) * int(grid[1]) // (height * width)

    def _written(self, text, counts):
        """Takes its pictures off the front of `counts`."""
        before, *behind = text.split(self.image_token)
        return before + "".join(self.image_token * counts.pop(0) + part for part in behind)
