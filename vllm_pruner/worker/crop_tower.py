"""A CLIP or SigLIP tower, which sees crops of one size.

An image is one crop or several; the tower attends within a crop. Pixels are `[crops, 3, height,
width]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import CLIPVisionConfig, SiglipVisionConfig
from vllm.model_executor.models.vision import (
    get_num_selected_vision_tokens,
    get_vision_encoder_info,
)

from vllm_pruner import compat
from vllm_pruner.methods.base import Need
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.tower import FEATURES, Columns
from vllm_pruner.worker.captured_crops import PIXELS, CapturedCrops
from vllm_pruner.worker.columns import columns_of
from vllm_pruner.worker.probe import AttentionProbe, crop_reader, layers_by_need
from vllm_pruner.worker.shrink import shrink_pixels, small_positions

if TYPE_CHECKING:
    from vllm_pruner.tower import EncoderImage

__all__ = ["CropTower", "crop_side", "crop_tokens", "last_rows"]

_LAYERS, _ATTENTION = "vision_model.encoder.layers", "self_attn.attn"


def crop_tokens(hf_config: Any) -> int:
    """Return N, the number of visual tokens of one crop.

    Raises:
        ConfigError: this vision tower cannot be pruned.
    """
    tower, strategy = hf_config.vision_config, hf_config.vision_feature_select_strategy
    if not isinstance(tower, CLIPVisionConfig | SiglipVisionConfig):
        raise ConfigError(
            f"vision tower is {tower.model_type}; allowed: clip_vision_model, siglip_vision_model"
        )
    if isinstance(tower, CLIPVisionConfig) and strategy != "default":
        raise ConfigError(
            f"vision_feature_select_strategy is {strategy!r} with a CLIP tower, which leaves the "
            "class token among the visual ones; allowed: 'default'"
        )
    size = tower.image_size
    tokens = get_vision_encoder_info(hf_config).get_num_image_tokens(
        image_width=size, image_height=size
    )
    return int(get_num_selected_vision_tokens(tokens, strategy))


def crop_side(hf_config: Any) -> int:
    """Return the number of rows, and of columns, of patches in a crop.

    With the strategy "default" a SigLIP tower has one visual token fewer than patches: it drops the
    first patch as if it were a class token.
    """
    tower = hf_config.vision_config
    return int(tower.image_size // tower.patch_size)


class CropTower(CapturedCrops):
    """The tower of a LLaVA-like model; see `CapturedTower` and `ShrinkingTower`."""

    own_width: int | None = None
    patches_per_row = 1

    def __init__(self, model: Any) -> None:
        """Find the layers.

        Args:
            model: vLLM's model, with `vision_tower`, `multi_modal_projector` and
                `_image_pixels_to_features`; of a `CropModel`, the one that replays no graphs.

        Raises:
            RuntimeError: the tower lacks a module that `compat.tower` relies on.
        """
        self.module, self._projector = model.vision_tower, model.multi_modal_projector
        self.page = crop_tokens(model.config)
        self._features = getattr(model, "stock_features", model._image_pixels_to_features)
        self._config = model.config.vision_config
        layers = layers_by_need(self._attention, self._config.num_hidden_layers)
        read = crop_reader(has_class_token=isinstance(self._config, CLIPVisionConfig))
        self._probe = AttentionProbe(layers, self._config.num_attention_heads, read)

    def _attention(self, layer: int) -> Any:
        return compat.tower_attention(self.module, _LAYERS, layer, _ATTENTION)

    def project(self, rows: torch.Tensor) -> torch.Tensor:
        projected: torch.Tensor = self._projector(rows)
        return projected

    def columns(self, needs: frozenset[Need]) -> dict[str, tuple[int, torch.dtype]]:
        width = self._config.hidden_size
        head_size = width // self._config.num_attention_heads
        return columns_of(self.module, width, head_size, needs)

    def encode(self, images: Sequence[EncoderImage], needs: frozenset[Need]) -> Columns:
        return self.run(self.inputs(images), needs)

    def encode_small(
        self, images: Sequence[EncoderImage], needs: frozenset[Need], grid: tuple[int, int]
    ) -> Columns:
        pixels = self.inputs(images)[PIXELS]
        small = shrink_pixels(pixels, grid, self._config.patch_size)
        with small_positions(self.module, grid):
            return self.run({PIXELS: small}, needs)

    @torch.no_grad()
    def run(self, inputs: dict[str, torch.Tensor], needs: frozenset[Need]) -> Columns:
        with self._probe.capture(needs) as captured:
            features = self._features(self.module, inputs[PIXELS])
        # Patches come last. A class token has no feature; a SigLIP tower with the strategy
        # "default" drops its first patch as if it were one.
        count = features.shape[1]
        columns = {
            str(need): self._probe.reduce(need, last_rows(values, count))
            for need, values in captured.items()
        }
        return {name: rows.flatten(0, 1) for name, rows in {FEATURES: features, **columns}.items()}


def last_rows(values: torch.Tensor, count: int) -> torch.Tensor:
    """Return the last `count` rows of each crop, in memory of their own if there are others: of one
    crop they would be a view of scores that begins behind the first one, at an address for which
    Triton compiles another variant of every kernel that reads them."""
    if values.shape[1] == count:
        return values
    return values[:, values.shape[1] - count :].clone(memory_format=torch.contiguous_format)
