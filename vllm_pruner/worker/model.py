"""The model's half of pruning, as vLLM calls it: a mixin for its model classes, which otherwise
differ only in their `Family`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from vllm.multimodal import MULTIMODAL_REGISTRY
from vtprune_kernels import implementation

from vllm_pruner import compat, methods
from vllm_pruner.byte_normalizer import ByteNormalizer, normalises
from vllm_pruner.plan import ImagePlan
from vllm_pruner.settings.keys import BYTES, settings_in
from vllm_pruner.settings.server import ServerConfig
from vllm_pruner.telemetry import metrics
from vllm_pruner.tower import VIDEO_PIXELS, EncoderImage, Tower
from vllm_pruner.worker import coverage, explain, guard
from vllm_pruner.worker.batches import batches
from vllm_pruner.worker.coverage import Coverage
from vllm_pruner.worker.early_model import EarlyModel
from vllm_pruner.worker.encoder import Encoder
from vllm_pruner.worker.guard import Guard
from vllm_pruner.worker.savings import Savings
from vllm_pruner.worker.selection import Selector
from vllm_pruner.worker.selection_graphs import selection_graphs
from vllm_pruner.worker.trial import try_kernels
from vllm_pruner.worker.warm_up import WarmUp

if TYPE_CHECKING:
    from vllm.config import VllmConfig

    from vllm_pruner.family import Family

__all__ = ["PrunedModel"]

logger = logging.getLogger("vllm.vtprune")


class PrunedModel(EarlyModel):
    """Mixin for a vLLM model with a `language_model` (else it overrides `decoder`) and, if rows of
    its layouts end in newlines, an `image_newline`.

    Changes:
    - `embed_multimodal` selects or merges tokens after the tower and projects only what is kept, or
      shrinks the image before the tower, or selects there;
    - a known image's features come from a cache instead of the tower;
    - the tower never encodes more at once than in vLLM's memory profile;
    - new weights clear that cache, and so does whatever has vLLM drop its own embeddings;
    - on a GPU, vLLM's first dummy image triggers the compilation of kernels (`warm_up`) and the
      capture of the server's own selection (`selection_graphs`), which vLLM's memory profile sees.
    If no image of a batch has a plan (rate 0), the inherited method runs.
    """

    family: Family

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        compat.check(compat.Process.ENGINE)
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        # `compat` turns vLLM's switch on; the model's own video pruning stays off.
        self.is_multimodal_pruning_enabled = False
        model_config = vllm_config.model_config
        config = ServerConfig.parse(settings_in(model_config.get_multimodal_config()) or {})
        info = MULTIMODAL_REGISTRY.get_processing_info(model_config)
        self._server_config, self._largest = config, self.family.largest(info)
        graphs = config.tower_graphs and not model_config.enforce_eager
        self._captures_selection = graphs and not compat.on_rocm()  # no AMD GPU has run them
        rows = self.family.rows(self._largest, self._largest.tokens)
        profiled = compat.profiled_images(vllm_config, rows, info.allowed_mm_limits["image"])
        self._rows_at_once = self._largest.encoded * profiled
        self.tower: Tower = self.family.tower(self)
        _prepare_worker(vllm_config)
        self._encoder = Encoder(self.tower, config.feature_cache_mb << 20, config.needs)
        self.guard, self.coverage = Guard(), Coverage()
        savings = Savings(self.tower.module, self.decoder)
        self._selector = Selector(self._encoder, savings, self.guard)
        self._warm_up = self._make_warm_up()
        self._normalize = self._make_normalizer(info, model_config.dtype)
        logger.info("vtprune: selection runs on %s", implementation(self._encoder.device))
        try_kernels(self._encoder.device)

    def _make_warm_up(self) -> WarmUp:
        """Return what launches the kernels of all methods that a request may name."""
        allowed = map(methods.get, self._server_config.limits.methods or methods.built_in())
        served = [each.name for each in allowed if self.family.serves(self.config, each)]
        one_size = self.family.one_layout
        return WarmUp(self.tower, served, self._largest.tokens, of_one_size=one_size)

    def _make_normalizer(self, info: Any, dtype: Any) -> ByteNormalizer | None:
        """Return what normalises pixels that come as bytes; None if none do."""
        if not (self.family.byte_pixels and self._server_config.byte_pixels):
            return None
        processor = info.get_hf_processor().image_processor
        if not normalises(processor):
            return None
        return ByteNormalizer(processor, dtype, self._encoder.device)

    def embed_multimodal(self, **kwargs: object) -> Any:
        kwargs = self._normalized(kwargs)
        plans = ImagePlan.pop_all(kwargs)
        if self._warm_up.once(plans, lambda: self._images(kwargs)) and self._captures_selection:
            self._selector.graphs = selection_graphs(
                self._server_config.of_image(),
                self._largest,
                self.tower,
                of_one_size=self.family.one_layout,
            )
        if plans:
            return self.embed_planned(plans, **kwargs)
        return self.embed_unpruned(**kwargs)

    def embed_unpruned(self, **kwargs: object) -> Any:
        """Return what vLLM's own class does for images that have no plan."""
        return super().embed_multimodal(**kwargs)

    def _images(self, kwargs: dict[str, object]) -> list[EncoderImage]:
        """Return the images or the videos of a batch; none if they are videos that this family
        does not prune."""
        videos = self.family.videos
        if videos is not None and not VIDEO_PIXELS.isdisjoint(kwargs):
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
        return {**kwargs, "pixel_values": self._normalize.each(pixels)}

    def embed_planned(self, plans: list[ImagePlan], **kwargs: object) -> list[torch.Tensor]:
        """Return the decoder's rows for each image: `[keep, width of the decoder]`.

        Args:
            plans: one for each image or video.
            kwargs: the images or the videos, as vLLM's `embed_multimodal` takes them.
        """
        self._selector.count(all(plan.image != ImagePlan.ANONYMOUS for plan in plans))
        fields = self._normalized(kwargs)
        images = self._images(fields)
        embeddings = self.embed_images(images, plans, fields)
        self._check_rows(images, plans, embeddings)
        return embeddings

    def embed_images(
        self,
        images: Sequence[EncoderImage],
        plans: Sequence[ImagePlan],
        fields: Mapping[str, Any],
    ) -> list[torch.Tensor]:
        """Return the decoder's rows for each image of the batch with these `fields`, or for some
        of its images."""
        return [
            rows
            for batch in batches(images, plans, self._rows_at_once)
            for rows in self.embed_batch(batch)
        ]

    def _check_rows(
        self, images: list[EncoderImage], plans: list[ImagePlan], embeddings: list[torch.Tensor]
    ) -> None:
        """Compare shapes, which need no device sync, with the prompt's counts.

        Raises:
            RuntimeError: they differ, so that rows of one image would go to another's places.
        """
        for image, plan, rows in zip(images, plans, embeddings, strict=True):
            keep = self.family.rows(image.layout, plan.kept_of(image.layout.tokens)) + plan.others
            if len(rows) != keep:
                raise RuntimeError(
                    f"vtprune: method {plan.config.method!r} returned {len(rows)} rows of an "
                    f"image; allowed: the {keep} that its prompt has places for"
                )

    def load_weights(self, weights: Any) -> set[str]:
        self.forget()
        return super().load_weights(weights)

    def forget(self) -> None:
        """Forget what was computed with the weights so far, or lay in memory that is given away."""
        self._encoder.forget()


def _prepare_worker(vllm_config: VllmConfig) -> None:
    """Say whose counts this process writes, and patch vLLM for its model."""
    metrics.set_engine(vllm_config.parallel_config.data_parallel_index)
    metrics.set_model(str(vllm_config.model_config.served_model_name))
    for each in (coverage, explain, guard):
        compat.add_worker_methods(each.WORKER_METHODS)
    compat.when_weights_change(_forget)
    if vllm_config.speculative_config is not None:
        compat.patch_draft_names()


def _forget(model: Any) -> None:
    if isinstance(model, PrunedModel):  # a process of tests has stock models too
        model.forget()
