"""The model's half of pruning: encode, select, project what is kept.

A mixin for vLLM's LLaVA-like classes. What differs between families is how an image is cut into
crops (`CropLayout`); a family's file says that, and what it accepts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from vllm.distributed import get_tp_group
from vtprune_kernels import gather_rows, implementation

from vllm_pruner import compat
from vllm_pruner.config import KEY, PruneConfig, ServerConfig
from vllm_pruner.method import VisualTokens
from vllm_pruner.models.crop_budget import choose
from vllm_pruner.models.crop_layout import CropLayout
from vllm_pruner.models.encoder import Encoder
from vllm_pruner.models.explain import WORKER_METHODS
from vllm_pruner.models.plan import ImagePlan
from vllm_pruner.models.raster import arrange

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

__all__ = ["CroppedImage", "PrunedModel"]

logger = logging.getLogger("vllm.vtprune")


@dataclass(frozen=True, slots=True, eq=False)
class CroppedImage:
    """An image as it enters the tower."""

    pixels: torch.Tensor
    """`[crops, 3, height, width]`."""

    layout: CropLayout
    """Where its tokens go."""


class PrunedModel(_Model):
    """Mixin for a vLLM model with `vision_tower`, `multi_modal_projector`, `language_model` and, if
    its layouts have rows that end in one, `image_newline`.

    Changes:
    - `embed_multimodal` selects after the tower and projects only what is kept;
    - a known image takes its features from a cache instead of the tower;
    - the tower never encodes more crops at once than vLLM's memory profile did;
    - new weights empty that cache.
    Images without settings (rate 0) take the inherited path.
    """

    on_selection: Callable[[VisualTokens, torch.Tensor, CropLayout], None] | None = None
    """Told of every selection: what it was made from, the kept positions, the images' layout."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        tokens, crops = self._largest_image()
        self._crops_at_once = crops * compat.profiled_images(vllm_config, tokens)
        kwargs = vllm_config.model_config.get_multimodal_config().mm_processor_kwargs or {}
        size = ServerConfig.parse(kwargs.get(KEY, {})).feature_cache_mb << 20
        tower = self.vision_tower
        self._encoder = Encoder(
            tower, lambda pixels: self._image_pixels_to_features(tower, pixels), self.config, size
        )
        compat.add_worker_methods(WORKER_METHODS)
        logger.info("vtprune: selection runs on %s", implementation(tower.device))

    def _largest_image(self) -> tuple[int, int]:
        """Return the most tokens that an image has, unpruned, and its crops."""
        raise NotImplementedError

    def _cropped(self, image_input: Any) -> list[CroppedImage]:
        """Return the images of a validated batch."""
        raise NotImplementedError

    def embed_multimodal(self, **kwargs: object) -> Any:
        if not (plans := ImagePlan.pop_all(kwargs)):
            return super().embed_multimodal(**kwargs)
        images = self._cropped(self._parse_and_validate_image_input(**kwargs))
        embeddings: list[torch.Tensor] = []
        for some in _portions(images, self._crops_at_once):
            embeddings += self._embed_pruned(images[some], plans[some])
        return embeddings

    def _embed_pruned(
        self, images: list[CroppedImage], plans: list[ImagePlan]
    ) -> list[torch.Tensor]:
        """Encode images together, then select and project those with equal settings together."""
        features, importance = self._encoder.encode(
            [image.pixels for image in images], [plan.image for plan in plans]
        )
        embeddings: list[torch.Tensor] = []
        end = 0
        pairs = zip(images, plans, strict=True)
        for (layout, config), group in groupby(pairs, key=lambda p: (p[0].layout, p[1].config)):
            texts = [plan.text for _, plan in group]
            some = slice(end, end := end + layout.crops * len(texts))
            embeddings += self._keep(features[some], importance[some], texts, config, layout)
        return embeddings

    def _keep(
        self,
        features: torch.Tensor,
        importance: torch.Tensor,
        texts: list[tuple[int, ...]],
        config: PruneConfig,
        layout: CropLayout,
    ) -> list[torch.Tensor]:
        """Return what is kept of each image, projected: `[keep, width of the decoder]` each."""
        project = self.multi_modal_projector
        tokens = VisualTokens(*arrange(features, importance, layout))
        if config.off:  # beside an image of the same request that is pruned
            tokens = replace(tokens, projected=project(tokens.features))
            kept = torch.arange(layout.tokens, device=features.device).expand(len(texts), -1)
        elif config.resolved[0].needs_text:
            # Matching a text takes all tokens in the decoder's space: none is projected twice.
            projected = project(tokens.features)
            tokens = replace(tokens, projected=projected, text=self._embed_texts(texts))
            kept = self._select(tokens, config, layout)
        else:
            kept = self._select(tokens, config, layout)
        patches, newline = layout.patches_at(kept)
        source = tokens.features if tokens.projected is None else tokens.projected
        (rows,) = gather_rows([source], patches)
        rows = project(rows) if tokens.projected is None else rows
        if layout.height:
            rows = rows.where(~newline.unsqueeze(2), self.image_newline)
        return list(rows)

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
    ) -> torch.Tensor:
        """Return the kept positions `[images, keep]`, the same on every rank.

        Equal features give equal indices; ranks agree on theirs because an all-reduce ends in the
        same bits everywhere. A backend that broke this would mix the tokens of two selections, so
        the first rank's choice is sent to the others: a few hundred bytes.
        """
        kept = choose(tokens, config, layout)
        if get_tp_group().world_size > 1:
            kept = get_tp_group().broadcast(kept.contiguous(), src=0)
        if self.on_selection is not None:
            self.on_selection(tokens, kept, layout)
        return kept

    def load_weights(self, weights: Any) -> set[str]:
        self._encoder.cache.clear()  # made with the old ones
        return super().load_weights(weights)


def _portions(images: list[CroppedImage], crops: int) -> Iterator[slice]:
    """Cut a batch into runs of at most `crops` crops, and at least one image."""
    start = held = 0
    for place, image in enumerate(images):
        if held and held + image.layout.crops > crops:
            yield slice(start, place)
            start, held = place, 0
        held += image.layout.crops
    yield slice(start, len(images))
