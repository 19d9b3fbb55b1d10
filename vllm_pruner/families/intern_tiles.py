"""What both forms of InternVL and Idefics3 have in common: tiles followed by a thumbnail.

All placeholders of an InternVL image are one run between two marks, so a tile may keep any number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from vllm_pruner.families.merging import MERGING
from vllm_pruner.families.unsuited import check_one_grid
from vllm_pruner.family import Family, Videos
from vllm_pruner.layout.cuts import cut_frames
from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.layout.tile_layout import TileLayout
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.tower import EncoderImage, Tower
from vllm_pruner.worker.shuffle_tower import ShuffleTower

__all__ = [
    "PrunedInternInfo",
    "intern_family",
    "intern_tower",
    "intern_videos",
    "of_tiles",
]


def of_tiles(hf_config: Any, tiles: int) -> TileLayout:
    """Return the layout of an image of that many tiles."""
    vision = hf_config.vision_config
    image, patch = (_one(size) for size in (vision.image_size, vision.patch_size))
    return TileLayout(int(image // patch * hf_config.downsample_ratio), tiles)


def _one(size: Any) -> int:
    """Return the side of a square, which may be given as a pair."""
    return int(size if isinstance(size, int) else size[0])


def video_layout(hf_config: Any, item: Mapping[str, Any]) -> GridLayout:
    """Return the layout of a processed video, whose frames are one tile each; see
    `Videos.item_layout`."""
    return _of_frames(hf_config, int(item["video_num_patches"]))


def intern_videos(pixels: str) -> Videos:
    """Return how videos are pruned; `pixels` is the key of the frames of all videos in vLLM's video
    input."""

    def videos(hf_config: Any, video_input: Any) -> list[EncoderImage]:
        counts = [int(count) for count in video_input["num_patches"]]  # on the CPU already
        return [
            EncoderImage(frames, _of_frames(hf_config, len(frames)))
            for frames in video_input[pixels].split(counts)
        ]

    return Videos(video_layout, videos, cut_frames)


def _of_frames(hf_config: Any, frames: int) -> GridLayout:
    side = of_tiles(hf_config, 1).side
    return GridLayout(side, side, frames=frames, apart=True)


class PrunedInternInfo(PrunedInfo):
    """A `PrunedInfo` of a model with InternVL's videos.

    Own change: their tokens are stated beside those of images, or vLLM would not profile with them.
    """

    def get_mm_max_tokens_per_item(
        self, seq_len: int, mm_counts: Mapping[str, int]
    ) -> Mapping[str, int]:
        tokens = super().get_mm_max_tokens_per_item(seq_len, mm_counts)
        stock: Any = self
        if "video" not in self.get_supported_mm_limits():
            return tokens
        frames = stock.get_num_frames_with_most_features(seq_len, mm_counts)
        return {**tokens, "video": frames * self.get_hf_processor().image_seq_length}


def intern_tower(
    model: Any, module: Any, projector: Any, layers: str, attention: str, norm: str
) -> ShuffleTower:
    """Return the tower of a vLLM model.

    Args:
        model: vLLM's model, with `pixel_shuffle`, `downsample_ratio` and `num_image_token`.
        module: see `ShuffleTower`, also for the other arguments.
        projector: as for `ShuffleTower`.
        layers: as for `ShuffleTower`.
        attention: as for `ShuffleTower`.
        norm: as for `ShuffleTower`.
    """
    return ShuffleTower(
        module,
        projector,
        partial(model.pixel_shuffle, scale_factor=model.downsample_ratio),
        layers=layers,
        attention=attention,
        norm=norm,
        token=round(1 / model.downsample_ratio) ** 2,
        page=model.num_image_token,
        has_class_token=True,
    )


def intern_family(
    name: str,
    pixels: str,
    tokens: Callable[[Any, int, int, Mapping[str, object]], int],
    tower: Callable[[Any], Tower],
    seen: Callable[[Any, Mapping[str, Any]], Any],
    of_tiles: Callable[[Any, int], TileLayout] = of_tiles,
    **more: Any,
) -> Family:
    """Return the family of a model with InternVL's tiles.

    Args:
        name: the family's name.
        pixels: the key of the tiles of all images in vLLM's image input.
        tokens: `tokens(info, height, width, mm_kwargs)`: an image's tokens, as vLLM counts them.
        tower: see `Family`.
        seen: see `Family`; the thumbnail first.
        of_tiles: `of_tiles(hf_config, tiles)`: the layout of an image of `tiles` tiles.
        more: other fields of `Family`.
    """

    def layout(info: Any, height: int, width: int, mm_kwargs: Mapping[str, object]) -> TileLayout:
        hf_config = info.get_hf_config()
        one = of_tiles(hf_config, 1)
        return of_tiles(hf_config, tokens(info, height, width, mm_kwargs) // one.tokens)

    def largest(info: Any) -> TileLayout:
        size = info.get_image_size_with_most_features()
        return layout(info, size.height, size.width, {})

    def images(hf_config: Any, image_input: Any) -> list[EncoderImage]:
        counts = [int(count) for count in image_input["num_patches"]]  # on the CPU already
        return [
            EncoderImage(tiles, of_tiles(hf_config, len(tiles)))
            for tiles in image_input[pixels].split(counts)
        ]

    fields: dict[str, Any] = {"largest": largest, "check_method": check_one_grid}
    fields |= {"captured": True, "captured_unasked": False, "stock_captured": True}
    fields |= {**MERGING, **more}
    return Family(name, layout=layout, images=images, tower=tower, seen=seen, **fields)
