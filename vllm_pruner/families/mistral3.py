"""Mistral3: `Mistral3ForConditionalGeneration`, Mistral Small 3.x in its transformers form.

Follows `vllm/model_executor/models/mistral3.py` of vLLM 0.32. An image of any size is one grid of
tokens, each 2 x 2 patches of Pixtral's tower. Each row ends in [IMG_BREAK], the last one in
[IMG_END]: positions are one-dimensional, so only these tokens tell where a row ends.

All breaks are kept, and any token may be. The prompt is built before the tower runs, when it is not
yet known between which kept tokens the breaks will be. So breaks are placeholders too, and the
model inserts their embeddings among the rows of the image. Breaks as text would fix a share of the
budget for each row; without breaks the decoder could not tell columns from rows. A row that keeps
no token keeps its break, so that the rows below stay in place. Breaks do not count towards the
budget.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from vllm.model_executor.models.mistral3 import (
    Mistral3DummyInputsBuilder,
    Mistral3ForConditionalGeneration,
    Mistral3MultiModalProcessor,
    Mistral3ProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vtprune_kernels import gather_rows

from vllm_pruner.families.llava import seen
from vllm_pruner.families.merging import MERGING
from vllm_pruner.families.qwen_grid import check_method
from vllm_pruner.family import Family
from vllm_pruner.layout.cuts import cut_runs
from vllm_pruner.layout.grid_layout import GridLayout
from vllm_pruner.layout.layout import Layout
from vllm_pruner.prompt.info import PrunedInfo
from vllm_pruner.prompt.processor import PrunedProcessor
from vllm_pruner.tower import EncoderImage
from vllm_pruner.worker.model import PrunedModel
from vllm_pruner.worker.pixtral_tower import PixtralTower

if TYPE_CHECKING:
    from vllm.config import VllmConfig

    from vllm_pruner.worker.batches import Group

__all__ = ["MISTRAL3", "PrunedMistral3"]


def largest(info: Any) -> GridLayout:
    """Return the layout with which vLLM profiles memory; see `Family.largest`."""
    size = info.get_image_size_with_most_features()
    return layout(info, size.height, size.width, {})


def layout(info: Any, height: int, width: int, mm_kwargs: Mapping[str, object]) -> GridLayout:
    """Return the layout of an image after the processor has resized it; see `Family.layout`."""
    encoder = info.get_vision_encoder_info(mm_kwargs)
    columns, rows = encoder.get_patch_grid_size(image_width=width, image_height=height)
    return GridLayout(max(1, rows), max(1, columns))  # the processor refuses a side of 0 tokens


def images(hf_config: Any, image_input: Any) -> list[EncoderImage]:
    """Return the images of a batch; see `Family.images`."""
    edge = hf_config.vision_config.patch_size * hf_config.spatial_merge_size
    return [
        EncoderImage(pixels, GridLayout(pixels.shape[-2] // edge, pixels.shape[-1] // edge))
        for pixels in image_input["pixel_values"]
    ]


def separators(layout: Layout) -> int:
    """Return the number of an image's breaks; see `Family.separators`."""
    assert isinstance(layout, GridLayout)
    return layout.rows - 1


def cut(full: Sequence[int], is_embed: Sequence[bool], kept: int) -> list[int]:
    """Return placeholders for kept tokens and breaks, then the token that ends an image; see
    `Family.cut`."""
    pairs = list(zip(full, is_embed, strict=True))
    tokens = [token for token, embeds in pairs if embeds]
    structure = [token for token, embeds in pairs if not embeds]
    short = cut_runs(tokens, [True] * len(tokens), kept)
    return short + short[:1] * len(structure[:-1]) + structure[-1:]


MISTRAL3 = Family(
    "mistral3",
    largest,
    layout,
    images,
    PixtralTower,
    seen,
    partial(check_method, smaller="size"),
    cut,
    separators=separators,
    **MERGING,
)


class PrunedMistral3Info(PrunedInfo, Mistral3ProcessingInfo):
    """`Mistral3ProcessingInfo` with settings; see `PrunedInfo` for the changes."""

    family = MISTRAL3


class PrunedMistral3Processor(PrunedProcessor, Mistral3MultiModalProcessor):
    """`Mistral3MultiModalProcessor` with fewer placeholders; see `PrunedProcessor`."""


@MULTIMODAL_REGISTRY.register_processor(
    PrunedMistral3Processor, info=PrunedMistral3Info, dummy_inputs=Mistral3DummyInputsBuilder
)
class PrunedMistral3(PrunedModel, Mistral3ForConditionalGeneration):
    """vLLM's Mistral3 with visual-token pruning; see `PrunedModel`.

    Own changes: the rows of a pruned image include its breaks.
    """

    family = MISTRAL3

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        info = MULTIMODAL_REGISTRY.get_processing_info(vllm_config.model_config)
        token = info.get_hf_processor().image_break_token
        self._break: int = info.get_tokenizer().get_vocab()[token]

    def placed(self, rows: torch.Tensor, index: torch.Tensor, group: Group) -> torch.Tensor:
        """Return the rows with a break after each row of the picture but the last."""
        layout = group.layout
        assert isinstance(layout, GridLayout)
        embedding = self.embed_plain(index.new_full((1,), self._break))
        breaks = embedding.expand(len(rows), separators(layout), -1)
        order = layout.order_with_breaks(index)
        return gather_rows([torch.cat([rows, breaks], dim=1)], order)[0]
