"""The model's half of pruning: encode, select, and project what is kept.

A mixin for vLLM's model classes, which otherwise differ only in their `Family`.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from vllm.multimodal import MULTIMODAL_REGISTRY
from vtprune_kernels import gather_rows, implementation

from vllm_pruner import compat, methods
from vllm_pruner.byte_pixels import ByteNormalizer, normalises
from vllm_pruner.layout.raster import arrange, is_mixed
from vllm_pruner.methods.base import TOWER, Kept, Need, VisualTokens
from vllm_pruner.methods.on_device import on_device
from vllm_pruner.plan import ImagePlan
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.keys import BYTES, settings_in
from vllm_pruner.settings.server import ServerConfig
from vllm_pruner.telemetry import metrics
from vllm_pruner.tower import FEATURES, Columns, EncoderImage, Tower
from vllm_pruner.worker import explain, guard
from vllm_pruner.worker.batches import Batch, Group, batches
from vllm_pruner.worker.encoder import Encoder
from vllm_pruner.worker.explain import Observer
from vllm_pruner.worker.guard import Guard
from vllm_pruner.worker.savings import Savings
from vllm_pruner.worker.selection import Selector
from vllm_pruner.worker.shrink import middles
from vllm_pruner.worker.warm_up import WarmUp

if TYPE_CHECKING:
    from vllm.config import VllmConfig

    from vllm_pruner.family import Family
    from vllm_pruner.layout.layout import Layout

    class _Model(nn.Module):
        """What the mixin expects of the class after it."""

        config: Any
        language_model: Any
        image_newline: Any

        def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None: ...
        def _parse_and_validate_image_input(self, **kwargs: object) -> Any: ...
        def _parse_and_validate_video_input(self, **kwargs: object) -> Any: ...
        def embed_multimodal(self, **kwargs: object) -> Any: ...
        def load_weights(self, weights: Any) -> set[str]: ...

else:
    _Model = object

__all__ = ["PrunedModel"]

logger = logging.getLogger("vllm.vtprune")

_VIDEO_PIXELS = "pixel_values_videos"
"""The field with a video's pixels, the same in every model."""


class PrunedModel(_Model):
    """Mixin for a vLLM model with a `language_model` (else it overrides `decoder`) and, if rows of
    its layouts end in newlines, an `image_newline`.

    Changes:
    - `embed_multimodal` selects or merges tokens after the tower and projects only what is kept, or
      shrinks the image before the tower;
    - a known image's features come from a cache instead of the tower;
    - the tower never encodes more at once than in vLLM's memory profile;
    - loading new weights clears that cache;
    - on a GPU, vLLM's first dummy image triggers the compilation of kernels (`warm_up`).
    If no image of a batch has a plan (rate 0), the inherited method runs.
    """

    family: Family

    on_selection: Observer | None = None
    """Called after every selection."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        compat.check(compat.Process.ENGINE)
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        mm_config = vllm_config.model_config.get_multimodal_config()
        config = ServerConfig.parse(settings_in(mm_config) or {})
        info = MULTIMODAL_REGISTRY.get_processing_info(vllm_config.model_config)
        largest = self.family.largest(info)
        rows = self.family.rows(largest, largest.tokens)
        profiled = compat.profiled_images(vllm_config, rows)
        self._rows_at_once = largest.encoded * profiled
        self.tower: Tower = self.family.tower(self)
        needs = config.resolved[0].needs
        metrics.set_engine(vllm_config.parallel_config.data_parallel_index)
        self._encoder = Encoder(self.tower, config.feature_cache_mb << 20, needs)
        savings = Savings(self.tower.module, self.decoder)
        self.guard = Guard()
        self._selector = Selector(self._encoder, savings, self.guard)
        allowed = map(methods.get, config.limits.methods or methods.built_in())
        served = [each.name for each in allowed if self.family.serves(self.config, each)]
        one_size = self.family.one_layout
        self._warm_up = WarmUp(self.tower, served, largest.tokens, of_one_size=one_size)
        self._normalize: ByteNormalizer | None = None
        if self.family.byte_pixels and config.byte_pixels:
            image_processor = info.get_hf_processor().image_processor
            if normalises(image_processor):
                dtype = vllm_config.model_config.dtype
                self._normalize = ByteNormalizer(image_processor, dtype, self._encoder.device)
        compat.add_worker_methods({**explain.WORKER_METHODS, **guard.WORKER_METHODS})
        logger.info("vtprune: selection runs on %s", implementation(self._encoder.device))

    @property
    def decoder(self) -> Any:
        """The language model, which also embeds the tokens of a prompt."""
        return self.language_model

    def embed_multimodal(self, **kwargs: object) -> Any:
        kwargs = self._normalized(kwargs)
        plans = ImagePlan.pop_all(kwargs)
        self._warm_up.once(plans, lambda: self._images(kwargs))
        if plans:
            return self.embed_planned(plans, **kwargs)
        return super().embed_multimodal(**kwargs)

    def _images(self, kwargs: dict[str, object]) -> list[EncoderImage]:
        """Return the images or the videos of a batch; none if they are videos that this family
        does not prune."""
        videos = self.family.videos
        if videos is not None and _VIDEO_PIXELS in kwargs:
            return videos.items(self.config, self._parse_and_validate_video_input(**kwargs))
        image_input = self._parse_and_validate_image_input(**kwargs)
        return [] if image_input is None else self.family.images(self.config, image_input)

    def _normalized(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return a batch's fields with pixels that came as bytes normalised."""
        if (pixels := kwargs.pop(BYTES, None)) is None:
            return kwargs
        assert self._normalize is not None, "its processor sends no bytes"
        if isinstance(pixels, torch.Tensor):
            return {**kwargs, "pixel_values": self._normalize(pixels)}
        return {**kwargs, "pixel_values": [self._normalize(each) for each in pixels]}  # of any size

    def embed_planned(self, plans: list[ImagePlan], **kwargs: object) -> list[torch.Tensor]:
        """Return the decoder's rows for each image: `[keep, width of the decoder]`.

        Args:
            plans: one for each image or video.
            kwargs: the images or the videos, as vLLM's `embed_multimodal` takes them.
        """
        self._selector.count(all(plan.image != ImagePlan.ANONYMOUS for plan in plans))
        images = self._images(self._normalized(kwargs))
        embeddings = [
            rows
            for batch in batches(images, plans, self._rows_at_once)
            for rows in self._embed_batch(batch)
        ]
        self._check_rows(images, plans, embeddings)
        return embeddings

    def _embed_batch(self, batch: Batch) -> list[torch.Tensor]:
        """Encode a batch together; select of its groups, and project what each keeps."""
        encoded, groups = self._encode(batch), batch.groups()
        tokens = [self._tokens_of(group, encoded) for group in groups]
        own = [self._own(some, group) for some, group in zip(tokens, groups, strict=True)]
        selected = self._selector.select(own, groups)
        embeddings: dict[int, torch.Tensor] = {}
        for group, some, kept in zip(groups, tokens, selected, strict=True):
            self._notify(some, kept, group)
            rows = self._project(some, kept, group.layout)
            if group.foreign:
                rows = self.guard.finite(rows, group.plans)
            rows = self.placed(rows, kept.index, group)
            embeddings |= zip(group.places, rows, strict=True)
        return [embeddings[place] for place in range(len(batch.images))]

    def placed(self, rows: torch.Tensor, index: torch.Tensor, group: Group) -> torch.Tensor:
        """Return the rows `[images, keep, width]` with what they carry to the decoder in addition;
        here nothing, since a token's place in the sequence is its position."""
        return rows

    def _encode(self, batch: Batch) -> Columns:
        """Run the tower for what the methods of a batch need."""
        needs = frozenset(need for plan in batch.plans for need in self._needs(plan.config))
        if batch.small_grid is not None:
            return self._encoder.encode_small(batch.images, needs, batch.small_grid)
        return self._encoder.encode(batch.images, [plan.image for plan in batch.plans], needs)

    def _own(self, tokens: VisualTokens, group: Group) -> VisualTokens:
        """Return the tokens as a method sees them: without DeepStack's features of earlier layers,
        unless the method merges, and so must merge those too."""
        width = self.tower.own_width
        if width is None or group.config.off:
            return tokens
        features, projected = tokens.features, tokens.projected
        if projected is not None:
            projected = projected[..., :width].contiguous()
        if not group.config.resolved[0].merges:
            features = features[..., :width].contiguous()
        return replace(tokens, features=features, projected=projected)

    def _needs(self, config: PruneConfig) -> frozenset[Need]:
        """Return what a method and the observer need; an unpruned image has no method."""
        needs = frozenset[Need]() if config.off else config.resolved[0].needs
        return needs if self.on_selection is None else needs | {Need.IMPORTANCE}

    def _tokens_of(self, group: Group, encoded: Columns) -> VisualTokens:
        """Return the visual tokens of a group in the decoder's order."""
        needs = self._needs(group.config)
        names = (FEATURES, *(needs & TOWER))
        arranged: dict[str, Any] = arrange(
            {name: group.of(encoded[name]) for name in names}, group.layout
        )
        grid = group.layout.whole_grid if Need.GRID in needs else None
        tokens = VisualTokens(**arranged, grid=grid)
        mixed = is_mixed(group.layout)
        if not (group.config.off or mixed or needs & {Need.PROJECTED, Need.TEXT}):
            return tokens
        # All tokens are projected if the method compares them in the decoder's space, or if all are
        # kept; `_project` then does not project them again.
        text = self._embed_texts(group.texts) if Need.TEXT in needs else None
        projected = self.tower.project(group.of(encoded[FEATURES]) if mixed else tokens.features)
        if mixed:
            projected = arrange({FEATURES: projected}, group.layout)[FEATURES]
        return replace(tokens, projected=projected, text=text)

    def _embed_texts(self, texts: list[tuple[int, ...]]) -> list[torch.Tensor]:
        """Return the decoder's input embeddings `[tokens, width]` of each text, from one lookup."""
        ids = on_device([token for text in texts for token in text], self._encoder.device)
        rows: torch.Tensor = self.decoder.embed_input_ids(ids)
        return list(rows.split([len(text) for text in texts]))

    def _project(self, tokens: VisualTokens, kept: Kept, layout: Layout) -> torch.Tensor:
        """Return the kept rows `[images, keep, width]` in the decoder's space, with newlines
        between them."""
        if kept.rows is not None:
            return self.tower.project(kept.rows)
        patches, newline = layout.patches_at(kept.index)
        if tokens.projected is None:
            rows = self.tower.project(gather_rows([tokens.features], patches)[0])
        else:
            rows = gather_rows([tokens.projected], patches)[0]
        if layout.height:
            rows = rows.where(~newline.unsqueeze(2), self.image_newline)
        return rows

    def _notify(self, tokens: VisualTokens, kept: Kept, group: Group) -> None:
        """Pass a selection to the observer, if there is one."""
        if self.on_selection is None:
            return
        index, full_grid = kept.index, group.layout.whole_grid
        if tokens.features.shape[1] < group.layout.patches:  # of a shrunk image
            small_grid = group.small_grid
            assert full_grid is not None and small_grid is not None
            index = middles(small_grid, full_grid, index.device).expand_as(index)
            tokens = replace(tokens, importance=None)
        self.on_selection(tokens, index, group.layout)

    def _check_rows(
        self, images: list[EncoderImage], plans: list[ImagePlan], embeddings: list[torch.Tensor]
    ) -> None:
        """Compare shapes, which need no device sync, with the prompt's counts.

        Raises:
            RuntimeError: they differ, so that rows of one image would go to another's places.
        """
        for image, plan, rows in zip(images, plans, embeddings, strict=True):
            keep = self.family.rows(image.layout, plan.kept_of(image.layout.tokens))
            if len(rows) != keep:
                raise RuntimeError(
                    f"vtprune: method {plan.config.method!r} returned {len(rows)} rows of an "
                    f"image; allowed: the {keep} that its prompt has places for"
                )

    def load_weights(self, weights: Any) -> set[str]:
        self._encoder.cache.clear()  # it was computed with the old weights
        return super().load_weights(weights)
