"""The model's half of pruning: encode, select, project what is kept.

A mixin for vLLM's LLaVA-like classes. What differs between families is how an image is cut into
crops (`CropLayout`); a family's file says that, and what it accepts.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from vllm.distributed import get_tp_group
from vtprune_kernels import gather_rows, implementation

from vllm_pruner import compat
from vllm_pruner.family import EncoderImage, Family
from vllm_pruner.layout.crop_budget import choose
from vllm_pruner.layout.crop_layout import CropLayout
from vllm_pruner.layout.raster import arrange
from vllm_pruner.methods.base import TOWER, Merged, Need, VisualTokens
from vllm_pruner.plan import ImagePlan
from vllm_pruner.settings.config import KEY, PruneConfig, ServerConfig
from vllm_pruner.telemetry import metrics
from vllm_pruner.telemetry.stopwatch import Stopwatch
from vllm_pruner.worker.explain import WORKER_METHODS, Observer
from vllm_pruner.worker.savings import Savings
from vllm_pruner.worker.shrink import middles
from vllm_pruner.worker.tower import FEATURES, Encoder

if TYPE_CHECKING:
    from vllm.config import VllmConfig

    class _Model(nn.Module):
        """What the mixin expects of the class after it."""

        config: Any
        vision_tower: Any
        multi_modal_projector: Any
        language_model: Any
        image_newline: Any

        def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None: ...
        def _parse_and_validate_image_input(self, **kwargs: object) -> Any: ...
        def _image_pixels_to_features(self, vision_tower: Any, pixel_values: Any) -> Any: ...
        def embed_multimodal(self, **kwargs: object) -> Any: ...
        def load_weights(self, weights: Any) -> set[str]: ...

else:
    _Model = object

__all__ = ["PrunedModel"]

logger = logging.getLogger("vllm.vtprune")


class PrunedModel(_Model):
    """Mixin for a vLLM model with `vision_tower`, `multi_modal_projector`, `language_model` and, if
    its layouts have rows that end in one, `image_newline`.

    Changes:
    - `embed_multimodal` selects or merges after the tower and projects only what is kept, or
      shrinks the image before it;
    - a known image takes its features from a cache instead of the tower;
    - the tower never encodes more crops at once than vLLM's memory profile did;
    - new weights empty that cache.
    Images without settings (rate 0) take the inherited path.
    """

    family: Family

    on_selection: Observer | None = None
    """Called after every selection."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        largest = self.family.largest(self.config)
        profiled = compat.profiled_images(vllm_config, largest.tokens)
        self._crops_at_once = largest.crops * profiled
        kwargs = vllm_config.model_config.get_multimodal_config().mm_processor_kwargs or {}
        config = ServerConfig.parse(kwargs.get(KEY, {}))
        tower = self.vision_tower
        self._encoder = Encoder(
            tower,
            lambda pixels: self._image_pixels_to_features(tower, pixels),
            self.config,
            config.feature_cache_mb << 20,
            config.resolved[0].needs,
        )
        compat.add_worker_methods(WORKER_METHODS)
        self._watch = Stopwatch(metrics.SELECTION_SECONDS, tower.device)
        self._savings = Savings(tower, self.language_model)
        logger.info("vtprune: selection runs on %s", implementation(tower.device))

    def embed_multimodal(self, **kwargs: object) -> Any:
        if not (plans := ImagePlan.pop_all(kwargs)):
            return super().embed_multimodal(**kwargs)
        return self.embed_planned(plans, **kwargs)

    def embed_planned(self, plans: list[ImagePlan], **kwargs: object) -> list[torch.Tensor]:
        """Return what the decoder gets of each image: `[keep, width of the decoder]`.

        Args:
            plans: one for each image.
            kwargs: the images, as vLLM's `embed_multimodal` takes them.
        """
        dummies = any(plan.image == ImagePlan.ANONYMOUS for plan in plans)
        self._watch.enabled = self._encoder.counts and not dummies
        image_input = self._parse_and_validate_image_input(**kwargs)
        images = self.family.images(self.config, image_input)
        embeddings: list[torch.Tensor] = []
        for some in _portions(images, self._crops_at_once):
            embeddings += self._embed_pruned(images[some], plans[some])
        return embeddings

    def _embed_pruned(
        self, images: list[EncoderImage], plans: list[ImagePlan]
    ) -> list[torch.Tensor]:
        """Encode images together, those that are shrunk alike, then select and project those with
        equal settings together."""
        embeddings: list[torch.Tensor] = []
        for grid, group in groupby(zip(images, plans, strict=True), key=_small_grid):
            pairs = list(group)
            encoded, end = self._encode(pairs, grid), 0
            for (layout, config), some in groupby(pairs, key=lambda p: (p[0].layout, p[1].config)):
                texts = [plan.text for _, plan in some]
                part = slice(end, end := end + layout.crops * len(texts))
                rows = {name: values[part] for name, values in encoded.items()}
                embeddings += self._keep(rows, texts, config, layout)
        return embeddings

    def _encode(
        self, pairs: list[tuple[EncoderImage, ImagePlan]], grid: tuple[int, int] | None
    ) -> dict[str, torch.Tensor]:
        """Run the tower for what the methods of these images look at."""
        pixels = [image.pixels for image, _ in pairs]
        needs = frozenset(need for _, plan in pairs for need in self._needs(plan.config))
        if grid is not None:
            return self._encoder.encode_small(pixels, needs, grid)
        return self._encoder.encode(pixels, [plan.image for _, plan in pairs], needs)

    def _keep(
        self,
        encoded: dict[str, torch.Tensor],
        texts: list[tuple[int, ...]],
        config: PruneConfig,
        layout: CropLayout,
    ) -> list[torch.Tensor]:
        """Return what is kept of each image, projected: `[keep, width of the decoder]` each."""
        project = self.multi_modal_projector
        needs = self._needs(config)
        read = {name: encoded[name] for name in (FEATURES, *(needs & TOWER))}
        arranged: dict[str, Any] = arrange(read, layout)
        tokens = VisualTokens(**arranged, grid=layout.whole_grid if Need.GRID in needs else None)
        if config.off or needs & {Need.PROJECTED, Need.TEXT}:
            # Comparing in the decoder's space takes all tokens there: none is projected twice.
            texts_rows = self._embed_texts(texts) if Need.TEXT in needs else None
            tokens = replace(tokens, projected=project(tokens.features), text=texts_rows)
        kept = self._select(tokens, config, layout)
        self._show(tokens, kept, config, layout)
        if isinstance(kept, Merged):
            return list(project(kept.rows))
        patches, newline = layout.patches_at(kept)
        source = tokens.features if tokens.projected is None else tokens.projected
        (rows,) = gather_rows([source], patches)
        rows = project(rows) if tokens.projected is None else rows
        if layout.height:
            rows = rows.where(~newline.unsqueeze(2), self.image_newline)
        return list(rows)

    def _needs(self, config: PruneConfig) -> frozenset[Need]:
        """What an image's method looks at; one without pruning may stand beside others."""
        needs = frozenset[Need]() if config.off else config.resolved[0].needs
        return needs if self.on_selection is None else needs | {Need.IMPORTANCE}

    def _show(
        self,
        tokens: VisualTokens,
        kept: torch.Tensor | Merged,
        config: PruneConfig,
        layout: CropLayout,
    ) -> None:
        """Show a selection to the observer, if there is one."""
        if self.on_selection is None:
            return
        index = kept.index if isinstance(kept, Merged) else kept
        if tokens.features.shape[1] < layout.patches:  # of a shrunk image
            assert layout.whole_grid is not None
            grid = config.resolved[0].shrink(index.shape[1])  # type: ignore[misc]
            index = middles(grid, layout.whole_grid, index.device).expand_as(index)
            tokens = replace(tokens, importance=None)
        self.on_selection(tokens, index, layout)

    def _embed_texts(self, texts: list[tuple[int, ...]]) -> list[torch.Tensor]:
        """The decoder's input embeddings `[tokens, width]` of each text, looked up together."""
        ids = torch.tensor([token for text in texts for token in text], dtype=torch.int64)
        decoder: Any = self.language_model
        rows: torch.Tensor = decoder.embed_input_ids(
            ids.to(self.vision_tower.device, non_blocking=True)
        )
        return list(rows.split([len(text) for text in texts]))

    @torch.no_grad()
    def _select(
        self, tokens: VisualTokens, config: PruneConfig, layout: CropLayout
    ) -> torch.Tensor | Merged:
        """Return the kept positions `[images, keep]` or merged rows, the same on every rank.

        Equal features give equal indices; ranks agree on theirs because an all-reduce ends in the
        same bits everywhere. A backend that broke this would mix the tokens of two selections, so
        the first rank's choice is sent to the others: a few hundred bytes.
        """
        if config.off:
            positions = torch.arange(layout.tokens, device=tokens.features.device)
            return positions.expand(len(tokens.features), -1)
        with self._watch.measure(method=config.method):
            kept = choose(tokens, config, layout)
        if self._watch.enabled:
            dropped = len(tokens.features) * (layout.tokens - config.keep_count(layout.tokens))
            self._savings.add(config.method, dropped, self._encoder.seconds_per_patch)
        ranks = get_tp_group()
        if ranks.world_size == 1:
            return kept
        if isinstance(kept, Merged):
            parts = (ranks.broadcast(part.contiguous(), src=0) for part in (kept.index, kept.rows))
            return Merged(*parts)
        sent: torch.Tensor = ranks.broadcast(kept.contiguous(), src=0)
        return sent

    def load_weights(self, weights: Any) -> set[str]:
        self._encoder.cache.clear()  # made with the old ones
        return super().load_weights(weights)


def _small_grid(pair: tuple[EncoderImage, ImagePlan]) -> tuple[int, int] | None:
    """Rows and columns of patches that an image is shrunk to, if its method shrinks it."""
    image, plan = pair
    method, _ = plan.config.resolved
    if method.shrink is None or plan.config.off:
        return None
    return method.shrink(plan.config.keep_count(image.layout.tokens))


def _portions(images: list[EncoderImage], crops: int) -> Iterator[slice]:
    """Cut a batch into runs of at most `crops` crops, and at least one image."""
    start = held = 0
    for place, image in enumerate(images):
        if held and held + image.layout.crops > crops:
            yield slice(start, place)
            start, held = place, 0
        held += image.layout.crops
    yield slice(start, len(images))
