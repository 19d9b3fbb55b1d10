"""The processor that Ai2 publishes beside Molmo2's weights, in what vLLM asks of it: transformers
has none of this name, so it is loaded from the checkpoint (`--trust-remote-code`). vLLM writes the
tokens itself."""

import numpy as np
import torch
from PIL import Image
from transformers import BaseVideoProcessor, BatchFeature, ProcessorMixin
from transformers.image_processing_utils import ImageProcessingMixin
from transformers.processing_utils import ImagesKwargs, ProcessingKwargs, Unpack

HALF = (0.5, 0.5, 0.5)


def patches_of(picture, size, patch):
    """A picture stretched to a size, as normalised patches `[rows, columns, patch * patch * 3]`."""
    small = picture.convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR)
    pixels = np.asarray(small, dtype=np.float32) / 127.5 - 1
    rows, columns = (side // patch for side in size)
    return pixels.reshape(rows, patch, columns, patch, 3).swapaxes(1, 2).reshape(rows, columns, -1)


def pooled(index, pool):
    """The numbers of the patches of each token, `[rows, columns, patches of a token]`, of an array
    of such numbers; -1 where a token reaches beyond the edge, half of that on either side."""
    over = [-length % side for length, side in zip(index.shape, pool, strict=True)]
    padded = np.pad(index, [(each // 2, each - each // 2) for each in over], constant_values=-1)
    rows, columns = (length // side for length, side in zip(padded.shape, pool, strict=True))
    return padded.reshape(rows, pool[0], columns, pool[1]).swapaxes(1, 2).reshape(rows, columns, -1)


class Molmo2ImagesKwargs(ImagesKwargs, total=False):
    max_crops: int
    overlap_margins: list[int]
    patch_size: int
    pooling_size: list[int]


class Molmo2ProcessorKwargs(ProcessingKwargs, total=False):
    images_kwargs: Molmo2ImagesKwargs


class Molmo2ImageProcessor(ImageProcessingMixin):
    """Stretches a picture to one crop, and to a grid of crops that overlap."""

    valid_kwargs = Molmo2ImagesKwargs
    model_input_names = ("pixel_values", "image_token_pooling", "image_grids", "image_num_crops")

    def __init__(
        self,
        size=None,
        max_crops=8,
        overlap_margins=(4, 4),
        patch_size=14,
        pooling_size=(2, 2),
        image_mean=HALF,
        image_std=HALF,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.size = size or {"height": 378, "width": 378}
        self.max_crops, self.overlap_margins = max_crops, list(overlap_margins)
        self.patch_size, self.pooling_size = patch_size, list(pooling_size)
        self.image_mean, self.image_std = image_mean, image_std

    def __call__(self, images, max_crops=None, **kwargs):
        made = [self._cut(image, max_crops or self.max_crops) for image in images]
        crops, pooling, grids = zip(*made, strict=True)
        return {
            "pixel_values": torch.from_numpy(np.concatenate(crops)),
            "image_token_pooling": torch.from_numpy(np.concatenate(pooling)),
            "image_grids": torch.tensor(grids),
            "image_num_crops": torch.tensor([len(each) for each in crops]),
        }

    def _cut(self, image, most):
        """The crops, the patches of all tokens, and rows and columns of both grids."""
        side, patch = self.size["height"] // self.patch_size, self.patch_size
        window, margin = side - sum(self.overlap_margins), sum(self.overlap_margins)
        down, across = self._tiling(image, window * patch, margin * patch, most)
        size = [(count * window + margin) * patch for count in (down, across)]
        large = patches_of(image, size, patch)
        index = np.empty(large.shape[:2], dtype=np.int64)
        crops = [patches_of(image, (side * patch, side * patch), patch)]
        for row in range(down):
            for column in range(across):
                top, left = row * window, column * window
                # What the crops before show further from their edges.
                first = [self.overlap_margins[0] * (at > 0) for at in (row, column)]
                own = np.arange(side * side).reshape(side, side) + len(crops) * side * side
                inside = (slice(first[0], None), slice(first[1], None))
                place = (slice(top + first[0], top + side), slice(left + first[1], left + side))
                index[place] = own[inside]
                crops.append(large[top : top + side, left : left + side])
        whole = pooled(np.arange(side * side).reshape(side, side), self.pooling_size)
        fine = pooled(index, self.pooling_size)
        pooling = [each.reshape(-1, each.shape[2]) for each in (whole, fine)]
        stacked = np.stack([crop.reshape(side * side, -1) for crop in crops])
        return stacked, np.concatenate(pooling), [*whole.shape[:2], *fine.shape[:2]]

    def _tiling(self, image, window, margin, most):
        """Rows and columns of crops: of the grids that a picture need not be shrunk for, the one
        that enlarges it least; if there is none, the one that shrinks it least."""
        pairs = [(r, c) for r in range(1, most + 1) for c in range(1, most + 1) if r * c <= most]
        pairs.sort(key=lambda pair: (pair[0] * pair[1], pair[0]))
        room = np.array([image.height - margin, image.width - margin], dtype=np.float32)
        with np.errstate(divide="ignore"):
            scale = (np.array(pairs, dtype=np.int32) * window).astype(np.float32) / room
        scale = scale.min(axis=1)
        if (scale < 1).all():
            return pairs[scale.argmax()]
        return pairs[np.where(scale < 1, 10e9, scale).argmin()]


class Molmo2VideoProcessor(BaseVideoProcessor):
    """Stretches each frame to one crop."""

    model_input_names = ("pixel_values_videos", "video_token_pooling", "video_grids")

    def __init__(
        self,
        size=None,
        patch_size=14,
        pooling_size=(3, 3),
        num_frames=384,
        max_fps=2.0,
        sampling_fps=2,
        frame_sample_mode="uniform_last_frame",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.size = size or {"height": 378, "width": 378}
        self.patch_size, self.pooling_size = patch_size, list(pooling_size)
        self.num_frames, self.max_fps, self.sampling_fps = num_frames, max_fps, sampling_fps
        self.frame_sample_mode = frame_sample_mode

    def __call__(self, videos, **kwargs):
        ((frames,),) = videos
        size = (self.size["height"], self.size["width"])
        cut = [patches_of(Image.fromarray(each), size, self.patch_size) for each in frames]
        rows, columns, values = cut[0].shape
        tokens = pooled(np.arange(rows * columns).reshape(rows, columns), self.pooling_size)
        of_frame = tokens.reshape(-1, tokens.shape[2])
        pooling = [
            np.where(of_frame < 0, -1, of_frame + number * rows * columns)
            for number in range(len(cut))
        ]
        return {
            "pixel_values_videos": torch.from_numpy(np.stack(cut).reshape(len(cut), -1, values)),
            "video_token_pooling": torch.from_numpy(np.concatenate(pooling)),
            "video_grids": torch.tensor([[len(cut), *tokens.shape[:2]]]),
        }


class Molmo2Processor(ProcessorMixin):
    """Returns the crops of pictures, or of the frames of a video."""

    def __init__(
        self,
        image_processor=None,
        video_processor=None,
        tokenizer=None,
        chat_template=None,
        image_use_col_tokens=True,
        use_single_crop_col_tokens=None,
        use_single_crop_start_token=True,
        video_use_col_tokens=False,
        use_frame_special_tokens=True,
        **kwargs,
    ):
        self.image_use_col_tokens = image_use_col_tokens
        self.use_single_crop_col_tokens = use_single_crop_col_tokens
        self.use_single_crop_start_token = use_single_crop_start_token
        self.video_use_col_tokens = video_use_col_tokens
        self.use_frame_special_tokens = use_frame_special_tokens
        super().__init__(image_processor, video_processor, tokenizer, chat_template=chat_template)

    def __call__(
        self,
        text=None,
        images=None,
        videos=None,
        max_crops=None,
        **kwargs: Unpack[Molmo2ProcessorKwargs],
    ):
        made = {"input_ids": self.tokenizer(text, return_tensors="pt")["input_ids"]}
        if images:
            made |= self.image_processor(images, max_crops=max_crops)
        if videos:
            made |= self.video_processor(videos)
        return BatchFeature(made)
