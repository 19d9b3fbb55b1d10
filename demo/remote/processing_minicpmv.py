"""The processor that is published beside the weights of MiniCPM-V with a resampler, in what vLLM
asks of it: transformers has none of this name, so it is loaded from the checkpoint
(`--trust-remote-code`). vLLM has its own in place of the latter part."""

from math import ceil, log, prod, sqrt

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature, ProcessorMixin
from transformers.image_processing_utils import ImageProcessingMixin
from transformers.processing_utils import ImagesKwargs


class MiniCPMVImageProcessor(ImageProcessingMixin):
    """Cuts a picture into slices, if it is large, and each of these and the whole picture into
    patches beside each other, `[3, P, patches * P]`."""

    valid_kwargs = ImagesKwargs
    model_input_names = ("pixel_values",)
    im_id_start, im_id_end = "<image_id>", "</image_id>"

    def __init__(
        self,
        max_slice_nums=9,
        scale_resolution=448,
        patch_size=14,
        image_feature_size=64,
        use_image_id=True,
        slice_mode=True,
        norm_mean=(0.5, 0.5, 0.5),
        norm_std=(0.5, 0.5, 0.5),
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.max_slice_nums, self.slice_mode = max_slice_nums, slice_mode
        self.scale_resolution, self.patch_size = scale_resolution, patch_size
        self.image_feature_size, self.use_image_id = image_feature_size, use_image_id
        self.mean, self.std = np.array(norm_mean), np.array(norm_std)

    def __call__(self, images, do_pad=True, return_tensors=None, max_slice_nums=None, **kwargs):
        """Of several prompts, with pictures or the frames of a video each."""
        images = [[_opened(image) for image in each] for each in images]
        cut = [[self._parts(image, max_slice_nums) for image in each] for each in images]
        made = {
            "pixel_values": [[self._patches(p) for parts in each for p in parts] for each in cut],
            "image_sizes": [[torch.tensor(image.size) for image in each] for each in images],
            "tgt_sizes": [torch.tensor([self._grid(p) for ps in each for p in ps]) for each in cut],
        }
        return BatchFeature(made)

    def get_sliced_grid(self, image_size, max_slice_nums, never_split=False):
        """Columns and rows of slices, of the shape that is the most like the picture's."""
        width, height = (int(side) for side in image_size)
        most = min(ceil(width * height / self.scale_resolution**2), max_slice_nums)
        if most <= 1 or never_split or not self.slice_mode:
            return None
        counts = [n for n in (most - 1, most, most + 1) if 1 < n <= max_slice_nums]
        grids = [(n, count // n) for count in counts for n in range(1, count + 1) if count % n == 0]
        return min(grids, key=lambda grid: abs(log(width / height) - log(grid[0] / grid[1])))

    def get_slice_image_placeholder(
        self, image_size, image_idx=0, max_slice_nums=None, use_image_id=None
    ):
        max_slice_nums = self.max_slice_nums if max_slice_nums is None else int(max_slice_nums)
        named = self.use_image_id if use_image_id is None else use_image_id
        tokens = "<unk>" * self.image_feature_size
        whole = f"<image>{tokens}</image>"
        number = f"{self.im_id_start}{image_idx}{self.im_id_end}" if named else ""
        grid = self.get_sliced_grid(image_size, max_slice_nums)
        if grid is None:
            return number + whole
        row = f"<slice>{tokens}</slice>" * grid[0]
        return number + whole + "\n".join([row] * grid[1])

    def _parts(self, image, max_slice_nums):
        """The whole picture and the slices."""
        most = self.max_slice_nums if max_slice_nums is None else int(max_slice_nums)
        grid = self.get_sliced_grid(image.size, most)
        whole = image.resize(self._fitting(image.size, grid is None), Image.Resampling.BICUBIC)
        if grid is None:
            return [whole]
        of_one = [max(1, round(n / k)) for n, k in zip(image.size, grid, strict=True)]
        width, height = self._fitting(of_one, True)
        large = image.resize((width * grid[0], height * grid[1]), Image.Resampling.BICUBIC)
        return [
            whole,
            *(
                large.crop((x * width, y * height, (x + 1) * width, (y + 1) * height))
                for y in range(grid[1])
                for x in range(grid[0])
            ),
        ]

    def _fitting(self, size, enlarges):
        """A size of whole patches and about the right number of pixels."""
        width, height = size
        if enlarges or width * height > self.scale_resolution**2:
            ratio = width / height
            height = int(self.scale_resolution / sqrt(ratio))
            width = int(height * ratio)
        patch = self.patch_size
        return tuple(max(patch, round(side / patch) * patch) for side in (width, height))

    def _grid(self, image):
        return image.height // self.patch_size, image.width // self.patch_size

    def _patches(self, image):
        pixels = (np.asarray(image) / 255 - self.mean) / self.std
        patch, grid = self.patch_size, self._grid(image)
        cut = torch.tensor(pixels, dtype=torch.float32).view(grid[0], patch, grid[1], patch, 3)
        return cut.permute(4, 1, 0, 2, 3).reshape(3, patch, prod(grid) * patch)


def _opened(image):
    return (image if isinstance(image, Image.Image) else Image.fromarray(image)).convert("RGB")


class MiniCPMVProcessor(ProcessorMixin):
    """Holds the tokenizer: what it does with pictures, vLLM does itself."""

    def __init__(self, image_processor=None, tokenizer=None, **kwargs):
        super().__init__(image_processor, tokenizer, **kwargs)
