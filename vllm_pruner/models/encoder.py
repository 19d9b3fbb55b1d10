"""A vision tower with its attention read out, and what it made of known images.

One step of every family: pixels of crops in, features and importance of their tokens out. An image
is one crop or several; the tower sees crops only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import CLIPVisionConfig, SiglipVisionConfig
from vllm.model_executor.models.vision import (
    get_num_selected_vision_tokens,
    get_vision_encoder_info,
)

from vllm_pruner.config import ConfigError
from vllm_pruner.models.attention_probe import AttentionProbe
from vllm_pruner.models.feature_cache import FeatureCache
from vllm_pruner.models.plan import ImagePlan

__all__ = ["Encoder", "crop_tokens"]


def crop_tokens(hf_config: Any) -> int:
    """Return N, the visual tokens that the tower makes of one crop.

    Raises:
        ConfigError: the vision tower is one that cannot be pruned here.
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


class Encoder:
    """Runs the tower on images that are not in its feature cache."""

    def __init__(
        self,
        tower: nn.Module,
        run: Callable[[torch.Tensor], Any],
        hf_config: Any,
        cache_bytes: int,
    ) -> None:
        """Hook the tower and take the memory of the cache.

        Args:
            tower: vLLM's CLIP or SigLIP vision model.
            run: `[crops, 3, height, width]` pixels to `[crops, N, D]` features, by that tower.
            hf_config: the whole model's.
            cache_bytes: of the feature cache at most; 0 keeps nothing.

        Raises:
            RuntimeError: the tower is not built as `compat` knows it.
        """
        vision = hf_config.vision_config
        self._run = run
        self._probe = AttentionProbe(
            tower, vision.num_attention_heads, isinstance(vision, CLIPVisionConfig)
        )
        first = next(tower.parameters())
        self.cache = FeatureCache(
            cache_bytes, crop_tokens(hf_config), vision.hidden_size, first.dtype, first.device
        )

    def encode(
        self, images: list[torch.Tensor], identities: list[str]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features and importance of images, of known ones from the cache.

        Args:
            images: `[crops, 3, height, width]` pixels each; the number of crops may differ.
            identities: which images they are, by `ImagePlan.image`.

        Returns:
            `[all crops, N, D]` features and `[all crops, N]` float32 importance, image by image.
        """
        if ImagePlan.ANONYMOUS in identities:
            return self._encode(images)
        return self.cache.fetch(
            identities,
            [len(crops) for crops in images],
            lambda places: self._encode([images[place] for place in places]),
        )

    @torch.no_grad()
    def _encode(self, images: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        with self._probe.capture() as scores:
            features = self._run(torch.cat(images))
        (importance,) = scores
        # A SigLIP tower with the strategy "default" drops its first patch as if it were a class.
        importance = importance[:, importance.shape[1] - features.shape[1] :]
        return features, self._probe.reduce(importance)
