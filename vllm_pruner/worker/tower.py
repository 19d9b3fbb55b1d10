"""The vision tower, with its attention read out and a cache of its output.

Pixels of crops go in; the features of their tokens come out, and whatever else the methods of the
batch look at. An image is one crop or several; the tower sees crops only.
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
"""The column that is always encoded, beside those of the `Need`s that are asked for."""


def crop_tokens(hf_config: Any) -> int:
    """Return N, the visual tokens that the tower makes of one crop.

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
        """Hook the tower and allocate the cache.

        Args:
            tower: vLLM's CLIP or SigLIP vision model.
            run: runs it on pixels `[crops, 3, height, width]`; returns features `[crops, N, D]`.
            vision_config: its configuration.
            tokens: N, visual tokens of a crop.
            cache_bytes: size of the feature cache; 0 keeps nothing.
            cached: what the server's own method needs. Of that, `TOWER` is cached beside features
                and importance; images that need more bypass the cache.

        Raises:
            RuntimeError: the tower is not built as `compat` knows it.
        """
        self._tower, self._run, self._patch = tower, run, vision_config.patch_size
        self._probe = AttentionProbe(
            tower, vision_config, isinstance(vision_config, CLIPVisionConfig)
        )
        first = next(tower.parameters())
        self._cached = (cached & TOWER) | {Need.IMPORTANCE}
        self._tokens = tokens
        columns = _columns(vision_config, first.dtype, self._cached)
        self.cache = FeatureCache(cache_bytes, tokens, columns, first.device)
        # All ranks encode the same images, so only the first one counts them.
        self.counts = get_tp_group().rank_in_group == 0
        self._watch = Stopwatch(metrics.TOWER_SECONDS, first.device)
        self._watch.enabled = self.counts
        self._report(hits=0, misses=0)

    def encode(
        self, images: list[torch.Tensor], identities: list[str], needs: frozenset[Need]
    ) -> dict[str, torch.Tensor]:
        """Return what methods look at; for known images, from the cache.

        Args:
            images: pixels `[crops, 3, height, width]` of each image; crops may differ in number.
            identities: the `ImagePlan.image` of each.
            needs: what to return beside the features; only `TOWER` matters.

        Returns:
            By field of `VisualTokens`: features `[all crops, N, D]` and at least what `needs` says,
            `[all crops, N, ...]` float32, image by image.
        """
        if ImagePlan.ANONYMOUS in identities:
            return self._encode(torch.cat(images), needs & TOWER)
        if not needs & TOWER <= self._cached:
            self._report(hits=0, misses=len(images))
            return self._measured(torch.cat(images), needs & TOWER)

        def encode(places: list[int]) -> dict[str, torch.Tensor]:
            return self._measured(torch.cat([images[p] for p in places]), self._cached)

        hits, misses = self.cache.hits, self.cache.misses
        columns = self.cache.fetch(identities, [len(crops) for crops in images], encode)
        self._report(self.cache.hits - hits, self.cache.misses - misses)
        return columns

    def _report(self, hits: int, misses: int) -> None:
        if self.counts:
            metrics.FEATURE_HITS.add(hits)
            metrics.FEATURE_MISSES.add(misses)
            metrics.FEATURE_BYTES.set(self.cache.bytes)

    def encode_small(
        self, images: list[torch.Tensor], needs: frozenset[Need], grid: tuple[int, int]
    ) -> dict[str, torch.Tensor]:
        """Return the same for images shrunk to a grid of patches. They are not cached."""
        with small_positions(self._tower, grid):
            return self._encode(shrink_pixels(torch.cat(images), grid, self._patch), needs & TOWER)

    def _measured(self, pixels: torch.Tensor, needs: frozenset[Need]) -> dict[str, torch.Tensor]:
        with self._watch.measure(pieces=len(pixels) * self._tokens):
            return self._encode(pixels, needs)

    @property
    def seconds_per_patch(self) -> float | None:
        """Mean device time of the tower for a patch; None before the first measurement."""
        return self._watch.seconds_per_piece

    @torch.no_grad()
    def _encode(self, pixels: torch.Tensor, needs: frozenset[Need]) -> dict[str, torch.Tensor]:
        with self._probe.capture(needs) as captured:
            features = self._run(pixels)
        # Patches come last. A class token has no feature; a SigLIP tower with the strategy
        # "default" drops its first patch as if it were one.
        count = features.shape[1]
        reduced = {
            str(need): self._probe.reduce(values[:, values.shape[1] - count :])
            for need, values in captured.items()
        }
        return {FEATURES: features, **reduced}


def _columns(
    vision_config: Any, dtype: torch.dtype, cached: frozenset[Need]
) -> dict[str, tuple[int, torch.dtype]]:
    """Return width and type of what is cached of a token; a score has width 0."""
    head_size = vision_config.hidden_size // vision_config.num_attention_heads
    columns = dict.fromkeys((FEATURES, *sorted(cached)), (0, torch.float32))
    columns[FEATURES] = (vision_config.hidden_size, dtype)
    if Need.KEYS in cached:
        columns[Need.KEYS] = (head_size, torch.float32)
    return columns
