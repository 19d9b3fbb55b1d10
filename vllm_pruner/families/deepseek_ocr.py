"""DeepSeek-OCR: `DeepseekOCRForCausalLM`, which reads documents.

Follows `vllm/model_executor/models/deepseek_ocr.py` of vLLM 0.32. An image is a grid of tokens of
the whole picture, padded to a square; before it, if the picture is larger than a crop, that of two
to six crops, over which it is stretched. A token is 64 x 64 pixels of either. Behind each row is a
newline and behind all a separator, one token of the model's own each. Positions are plain, so
these alone tell where a token is: all stay (`own_marks`).

What is pruned by default is what is empty, as of other models that read (`READING`). `pixels`
ranks both grids as one list, each token beside its own neighbours. The tower sees all of the
picture all the same (`deep_encoder_tower`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import interpolate
from vllm.model_executor.models.deepseek_ocr import (
    DeepseekOCRDummyInputsBuilder,
    DeepseekOCRForCausalLM,
    DeepseekOCRMultiModalProcessor,
    DeepseekOCRProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.parse import ImageSize
from vllm.transformers_utils.processors.deepseek_ocr import (
    BASE_SIZE,
    CROP_MODE,
    IMAGE_SIZE,
    MAX_CROPS,
    count_tiles,
)
from vtprune_kernels import gather_rows

from vllm_pruner.families.merging import READING
from vllm_pruner.families.own_marks import MarkedProcessor, cut
from vllm_pruner.families.unsuited import check_counted, check_one_grid
from vllm_pruner.family import Family
from vllm_pruner.layout.fine_then_whole import FineThenWhole
from vllm_pruner.layout.layout import Layout
from vllm_pruner.methods.base import Method, VisualTokens
from vllm_pruner.prompt.coarse_pictures import CoarsePictures
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.tower import EncoderImage
from vllm_pruner.worker.deep_encoder_tower import (
    PATCH,
    DeepEncoderTower,
    ViewedImage,
    pixels_of_tokens,
    stitched,
)
from vllm_pruner.worker.replayed_model import ReplayedModel

if TYPE_CHECKING:
    from vllm_pruner.prompt.pictures import Pictures
    from vllm_pruner.worker.batches import Batch, Group

__all__ = ["DEEPSEEK_OCR", "PrunedDeepseekOCR"]

_WHOLE, _CROP = BASE_SIZE // PATCH, IMAGE_SIZE // PATCH
"""Rows, and columns, of tokens of the whole picture and of a crop."""

_COUNTED = {
    **{"base_size": BASE_SIZE, "image_size": IMAGE_SIZE, "crop_mode": CROP_MODE},
    **{"max_crops": MAX_CROPS, "strategy": "v1"},
}
"""Arguments of the processor by which vLLM counts an image's tokens, whatever a request says."""


def largest(info: Any) -> FineThenWhole:
    """Return the layout with which vLLM profiles memory; see `Family.largest`.

    Raises:
        ConfigError: the projector joins tokens.
    """
    kind = info.get_hf_config().projector_config.projector_type
    if kind != "linear":
        raise ConfigError(f"projector_type is {kind!r}; allowed: 'linear', a token for a token")
    size = info.get_image_size_with_most_features()
    return layout(info, size.height, size.width, {})


def layout(info: Any, height: int, width: int, mm_kwargs: Mapping[str, object]) -> FineThenWhole:
    """Return the layout of an image as vLLM counts it; see `Family.layout`.

    Raises:
        ConfigError: the request or the server would have it cut otherwise.
    """
    said = info.ctx.get_merged_mm_kwargs(mm_kwargs)
    check_counted(SimpleNamespace(**_COUNTED), said, tuple(_COUNTED))
    if max(height, width) <= IMAGE_SIZE:
        return layout_of((1, 1))
    return layout_of(count_tiles(width, height, image_size=IMAGE_SIZE))


def layout_of(tiles: Sequence[int]) -> FineThenWhole:
    """Return the layout of an image of so many columns and rows of crops; one is none."""
    across, down = map(int, tiles)
    fine = (down * _CROP, across * _CROP) if across * down > 1 else (0, 0)
    return FineThenWhole((_WHOLE, _WHOLE), fine)


def images(hf_config: Any, image_input: Any) -> list[EncoderImage]:
    """Return the images of a batch; see `Family.images`."""
    tiles = image_input["images_spatial_crop"].tolist()  # on the CPU already
    numbers = [across * down if across * down > 1 else 0 for across, down in tiles]
    crops = image_input["images_crop"].split(numbers)
    wholes = image_input["data"].split(1)
    return [
        ViewedImage(whole, layout_of(each), its_crops, (each[1], each[0]))
        for whole, each, its_crops in zip(wholes, tiles, crops, strict=True)
    ]


def seen(hf_config: Any, item: Mapping[str, Any]) -> torch.Tensor:
    """Return the whole picture, and its crops as one picture of the same size; see
    `Family.seen`."""
    whole = torch.as_tensor(item["pixel_values"]).view(1, 3, BASE_SIZE, BASE_SIZE)
    crops = torch.as_tensor(item["images_crop"]).view(-1, 3, IMAGE_SIZE, IMAGE_SIZE)
    if not len(crops):
        return whole
    across, down = map(int, torch.as_tensor(item["images_spatial_crop"]).flatten())
    rows = stitched(crops.permute(0, 2, 3, 1).flatten(1, 2), (down, across))
    picture = rows.view(1, down * IMAGE_SIZE, across * IMAGE_SIZE, 3).permute(0, 3, 1, 2)
    fine = interpolate(picture.float(), (BASE_SIZE, BASE_SIZE), mode="bilinear", antialias=True)
    return torch.cat([whole, fine.to(whole.dtype)])


def check_method(hf_config: Any, method: Method) -> None:
    """Refuse a method that needs one grid, but for `pixels`, which ranks two; see
    `Family.check_method`."""
    if not method.before_tower:
        check_one_grid(hf_config, method, "a grid of its crops and one of the whole picture")


def separators(layout: Layout) -> int:
    """Return the number of an image's newlines and separators; see `Family.separators`."""
    assert isinstance(layout, FineThenWhole)
    return layout.breaks + 1


DEEPSEEK_OCR = Family(
    "deepseek_ocr",
    largest,
    layout,
    images,
    DeepEncoderTower,
    seen,
    check_method,
    cut,
    separators=separators,
    own_marks=True,
    stock_captured=True,
    **READING | {"merger": False},  # SAM's convolutions join patches in the midst of the tower
)


class PrunedDeepseekOCRInfo(PrunedInfo, DeepseekOCRProcessingInfo):
    """`DeepseekOCRProcessingInfo` with settings; see `PrunedInfo` for the changes.

    Own changes: memory is profiled with a picture of the most crops, where vLLM's own has four.
    """

    family = DEEPSEEK_OCR

    def get_image_size_with_most_features(self) -> ImageSize:
        return ImageSize(width=IMAGE_SIZE, height=MAX_CROPS * IMAGE_SIZE)

    @property
    def image_token(self) -> int:
        return int(self.get_hf_processor().image_token_id)

    def normalisation(self) -> tuple[Sequence[float], Sequence[float]]:
        processor = self.get_hf_processor()
        return processor.image_mean, processor.image_std


class PrunedDeepseekOCRProcessor(MarkedProcessor, DeepseekOCRMultiModalProcessor):
    """`DeepseekOCRMultiModalProcessor` with fewer placeholders; see `MarkedProcessor`.

    Own change: what is empty of a picture is told by the whole picture's tokens, the larger ones.
    """

    @cached_property
    def _pictures(self) -> Pictures:
        return CoarsePictures()

    def shows(self, item: Mapping[str, Any], full: Sequence[int]) -> torch.Tensor:
        # Tokens and marks have one id; how many are tokens is all that a cut asks.
        tokens = layout_of(torch.as_tensor(item["images_spatial_crop"]).flatten().tolist()).tokens
        return torch.arange(len(full)) < tokens


@MULTIMODAL_REGISTRY.register_processor(  # type: ignore[misc]  # the mixin knows LLaVA's info
    PrunedDeepseekOCRProcessor,
    info=PrunedDeepseekOCRInfo,
    dummy_inputs=DeepseekOCRDummyInputsBuilder,
)
class PrunedDeepseekOCR(ReplayedModel, DeepseekOCRForCausalLM):
    """vLLM's DeepSeek-OCR, keeping the visual tokens that show something; see `ReplayedModel`.

    Own changes: the rows of an image include its newlines and its separator; `pixels` sees both
    grids.
    """

    family = DEEPSEEK_OCR

    def placed(self, rows: torch.Tensor, index: torch.Tensor, group: Group) -> torch.Tensor:
        """Return the rows with all marks of both grids."""
        layout = group.layout
        assert isinstance(layout, FineThenWhole)
        newlines = self.image_newline.expand(layout.breaks, -1)
        marks = torch.cat([newlines, self.view_seperator.unsqueeze(0)]).to(rows.dtype)
        order = layout.order_with_marks(index)
        return gather_rows([torch.cat([rows, marks.expand(len(rows), -1, -1)], dim=1)], order)[0]

    def _pixels_of(self, group: Group, batch: Batch) -> VisualTokens:
        layout = group.layout
        assert isinstance(layout, FineThenWhole)
        pixels = [pixels_of_tokens(batch.images[place]) for place in group.places]
        grids = tuple(grid.whole_grid for grid in layout.grids)
        return VisualTokens(torch.stack(pixels), grids=grids)
