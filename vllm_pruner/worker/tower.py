"""A vision tower with its attention read out, and what it made of known images.

One step of every family: pixels of crops in, features of their tokens out and what else the methods
of the batch look at. An image is one crop or several; the tower sees crops only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import CLIPVisionConfig, SiglipVisionConfig
from vllm.distributed import get_tp_group
from vllm.model_executor.models.vision import (
    get_num_selected_vision_tokens,
    get_vision_encoder_info,
)

from vllm_pruner.methods.base import TOWER, Need
from vllm_pruner.plan import ImagePlan
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.telemetry import metrics
from vllm_pruner.telemetry.stopwatch import Stopwatch
from vllm_pruner.worker.feature_cache import FeatureCache
from vllm_pruner.worker.probe import AttentionProbe
from vllm_pruner.worker.shrink import shrink_pixels, small_positions

__all__ = ["FEATURES", "Encoder", "crop_side", "crop_tokens"]

FEATURES = "features"
"""What is always there, beside the `Need`s that were asked for."""


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


def crop_side(hf_config: Any) -> int:
    """Return the rows, and the columns, of patches in a crop.

    A SigLIP tower has one visual token fewer than patches under the strategy "default", which drops
    the first patch as if it were a class token.
    """
    tower = hf_config.vision_config
    return int(tower.image_size // tower.patch_size)


class Encoder:
    """Runs the tower on images that are not in its feature cache."""

    def __init__(
        self,
        tower: nn.Module,
        run: Callable[[torch.Tensor], Any],
        vision_config: Any,
        tokens: int,
        cache_bytes: int,
        cached: frozenset[Need],
    ) -> None:
        """Hook the tower and take the memory of the cache.

        Args:
            tower: vLLM's CLIP or SigLIP vision model.
            run: `[crops, 3, height, width]` pixels to `[crops, N, D]` features, by that tower.
            vision_config: the tower's.
            tokens: N, visual tokens of a crop.
            cache_bytes: of the feature cache at most; 0 keeps nothing.
            cached: of `TOWER`, what the cache keeps beside the features and the importance: what
                the server's own method needs. Images that need more go past the cache.

        Raises:
            RuntimeError: the tower is not built as `compat` knows it.
        """
        self._tower, self._run, self._patch = tower, run, vision_config.patch_size
        self._probe = AttentionProbe(
            tower, vision_config, isinstance(vision_config, CLIPVisionConfig)
        )
        first = next(tower.parameters())
        self._cached = (cached & TOWER) | {Need.IMPORTANCE}
        head_size = vision_config.hidden_size // vision_config.num_attention_heads
        width_of = {
            FEATURES: (vision_config.hidden_size, first.dtype),
            Need.KEYS: (head_size, torch.float32),
        }
        score = (0, torch.float32)
        columns = {name: width_of.get(name, score) for name in (FEATURES, *sorted(self._cached))}
        self._tokens = tokens
        self.cache = FeatureCache(cache_bytes, self._tokens, columns, first.device)
        # Every rank has the same images; the first speaks for all.
        self.counts = get_tp_group().rank_in_group == 0
        self._watch = Stopwatch(metrics.TOWER_SECONDS, first.device)
        self._watch.enabled = self.counts
        self._report(hits=0, misses=0)

    def encode(
        self, images: list[torch.Tensor], identities: list[str], needs: frozenset[Need]
    ) -> dict[str, torch.Tensor]:
        """Return what methods look at, of known images from the cache.

        Args:
            images: `[crops, 3, height, width]` pixels each; the number of crops may differ.
            identities: which images they are, by `ImagePlan.image`.
            needs: what is asked for beside the features; only `TOWER` matters.

        Returns:
            By their names in `VisualTokens`: `[all crops, N, D]` features and at least what is
            asked for, `[all crops, N, ...]` float32, image by image.
        """
        if ImagePlan.ANONYMOUS in identities:
            return self._encode(torch.cat(images), needs & TOWER)
        if not needs & TOWER <= self._cached:
            self._report(hits=0, misses=len(images))
            return self._measured(torch.cat(images), needs & TOWER)

        def encode(places: list[int]) -> dict[str, torch.Tensor]:
            return self._measured(torch.cat([images[p] for p in places]), self._cached)

        hits, misses = self.cache.hits, self.cache.misses
        found = self.cache.fetch(identities, [len(crops) for crops in images], encode)
        self._report(self.cache.hits - hits, self.cache.misses - misses)
        return found

    def _report(self, hits: int, misses: int) -> None:
        if self.counts:
            metrics.FEATURE_HITS.add(hits)
            metrics.FEATURE_MISSES.add(misses)
            metrics.FEATURE_BYTES.set(self.cache.bytes)

    def encode_small(
        self, images: list[torch.Tensor], needs: frozenset[Need], grid: tuple[int, int]
    ) -> dict[str, torch.Tensor]:
        """Return the same of images shrunk to `grid` patches, none of which is kept."""
        with small_positions(self._tower, grid):
            return self._encode(shrink_pixels(torch.cat(images), grid, self._patch), needs & TOWER)

    def _measured(self, pixels: torch.Tensor, needs: frozenset[Need]) -> dict[str, torch.Tensor]:
        with self._watch.measure(pieces=len(pixels) * self._tokens):
            return self._encode(pixels, needs)

    @property
    def seconds_per_patch(self) -> float | None:
        """Device time of the tower, by all that was counted so far; None if nothing was."""
        return self._watch.seconds_per_piece

    @torch.no_grad()
    def _encode(self, pixels: torch.Tensor, needs: frozenset[Need]) -> dict[str, torch.Tensor]:
        with self._probe.capture(needs) as found:
            features = self._run(pixels)
        # Patches come last. A class token is no feature; a SigLIP tower with the strategy "default"
        # drops its first patch as if it were one.
        count = features.shape[1]
        values = {
            str(need): self._probe.reduce(v[:, v.shape[1] - count :]) for need, v in found.items()
        }
        return {FEATURES: features, **values}
