"""The vision tower with a cache of its output, timed and counted.

It turns images into the features of their tokens, and whatever else the batch's methods read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from vllm.distributed import get_tp_group

from vllm_pruner.methods.base import CAPTURED, Need
from vllm_pruner.plan import ImagePlan
from vllm_pruner.telemetry import metrics
from vllm_pruner.telemetry.stopwatch import Stopwatch
from vllm_pruner.tower import FEATURES
from vllm_pruner.worker.columns import device_of, is_left_out
from vllm_pruner.worker.feature_cache import FeatureCache

if TYPE_CHECKING:
    import torch

    from vllm_pruner.tower import Columns, EncoderImage, ShrinkingTower, ThinTower, Tower
    from vllm_pruner.worker.tower_graphs import TowerGraphs

__all__ = ["Encoder"]


class Encoder:
    """Runs the tower on images that are not in its feature cache."""

    def __init__(self, tower: Tower, cache_bytes: int, cached: frozenset[Need]) -> None:
        """Allocate the cache.

        Args:
            tower: the tower to run.
            cache_bytes: size of the feature cache; 0 disables it.
            cached: the needs of the server's own settings. Those in `CAPTURED` are cached in
                addition to features and importance; images that need more bypass the cache.
        """
        self._tower = tower
        self.cached = (cached & CAPTURED) | {Need.IMPORTANCE}
        """The needs that are cached."""
        self.graphs: TowerGraphs | None = None
        """The CUDA graphs that compute `cached`; None if the tower has none."""
        self.device = device_of(tower.module)
        size = 0 if is_left_out(tower.module) else cache_bytes
        self.cache = FeatureCache(size, tower.page, tower.columns(self.cached), self.device)
        # All ranks encode the same images, so only the first one counts them.
        self.counts = get_tp_group().rank_in_group == 0
        self._watch = Stopwatch(metrics.TOWER_SECONDS, self.device)
        self._watch.enabled = self.counts
        self._report(hits=0, misses=0)

    def encode(
        self, images: Sequence[EncoderImage], identities: list[str], needs: frozenset[Need]
    ) -> Columns:
        """Return the columns of images, from the cache where it has them.

        Args:
            images: the images, as the tower takes them.
            identities: the `ImagePlan.image` of each.
            needs: what to return besides the features; only `CAPTURED` matters.

        Returns:
            Features `[rows, D]` and at least the columns of `needs`, `[rows, ...]` float32, image
            by image.
        """
        needs = needs & CAPTURED
        if ImagePlan.ANONYMOUS in identities:
            return self._tower.encode(images, needs)
        if not needs <= self.cached:
            self._report(hits=0, misses=len(images))
            return self._measured(images, needs)

        def encode(places: list[int]) -> Columns:
            return self._measured([images[place] for place in places], self.cached)

        hits, misses = self.cache.hits, self.cache.misses
        lengths = [image.layout.encoded for image in images]
        columns = self.cache.fetch(identities, lengths, encode)
        self._report(self.cache.hits - hits, self.cache.misses - misses)
        return columns

    def encode_small(
        self, images: Sequence[EncoderImage], needs: frozenset[Need], grid: tuple[int, int]
    ) -> Columns:
        """Return the columns of images shrunk to a grid of patches, which are not cached."""
        return cast("ShrinkingTower", self._tower).encode_small(images, needs & CAPTURED, grid)

    def encode_some(
        self,
        images: Sequence[EncoderImage],
        identities: list[str],
        kept: torch.Tensor,
        lengths: Sequence[int],
    ) -> torch.Tensor:
        """Return the rows of some tokens of images, which are not cached; see `ThinTower`.

        vLLM's dummy images are encoded whole, so that its memory profile has room for images that a
        request leaves unpruned.
        """
        tower = cast("ThinTower", self._tower)
        if ImagePlan.ANONYMOUS in identities:
            return tower.encode(images, frozenset())[FEATURES][kept]
        self._report(hits=0, misses=len(images))
        with self._watch.measure(pieces=len(kept) * tower.patches_per_row):
            return tower.encode_some(images, kept, lengths)

    def forget(self) -> None:
        """Empty the cache."""
        self.cache.clear()
        self._report(hits=0, misses=0)

    def _measured(self, images: Sequence[EncoderImage], needs: frozenset[Need]) -> Columns:
        rows = sum(image.layout.encoded for image in images)
        with self._watch.measure(pieces=rows * self._tower.patches_per_row):
            if self.graphs is not None and self.graphs.hold(images, needs):
                return self.graphs.encode(images)
            return self._tower.encode(images, needs)

    def _report(self, hits: int, misses: int) -> None:
        if self.counts:
            metrics.FEATURE_HITS.add(hits)
            metrics.FEATURE_MISSES.add(misses)
            metrics.FEATURE_BYTES.set(self.cache.bytes)

    @property
    def seconds_per_patch(self) -> float | None:
        """Mean device time of the tower per patch; None before the first measurement."""
        return self._watch.seconds_per_piece
