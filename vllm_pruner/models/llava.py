"""LLaVA-1.5 and its kin: `LlavaForConditionalGeneration` with a CLIP or SigLIP tower.

Follows `vllm/model_executor/models/llava.py` of vLLM 0.32.
"""

from __future__ import annotations

import logging
from itertools import groupby
from typing import Any

import torch
from transformers import CLIPVisionConfig, SiglipVisionConfig
from vllm.config import VllmConfig
from vllm.distributed import get_tp_group
from vllm.model_executor.models.llava import (
    LlavaDummyInputsBuilder,
    LlavaForConditionalGeneration,
    LlavaMultiModalProcessor,
    LlavaProcessingInfo,
)
from vllm.model_executor.models.vision import (
    get_num_selected_vision_tokens,
    get_vision_encoder_info,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vtprune_kernels import gather_rows, implementation

from vllm_pruner import compat
from vllm_pruner.config import KEY, ConfigError, PruneConfig, ServerConfig
from vllm_pruner.method import VisualTokens
from vllm_pruner.models.attention_probe import AttentionProbe
from vllm_pruner.models.feature_cache import FeatureCache
from vllm_pruner.models.plan import ImagePlan
from vllm_pruner.models.processing import PrunedInfo, PrunedProcessor

__all__ = ["PrunedLlava", "visual_tokens"]

logger = logging.getLogger("vllm.vtprune")


def visual_tokens(hf_config: Any) -> int:
    """Return the visual tokens of an image, unpruned.

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


class PrunedLlavaInfo(PrunedInfo, LlavaProcessingInfo):
    """`LlavaProcessingInfo` with settings; see `PrunedInfo` for the changes."""

    def image_tokens(self, size: object) -> int:
        """The same for every image."""
        return self.get_max_image_tokens()


class PrunedLlavaProcessor(PrunedProcessor, LlavaMultiModalProcessor):
    """`LlavaMultiModalProcessor` with fewer placeholders; see `PrunedProcessor`."""


@MULTIMODAL_REGISTRY.register_processor(
    PrunedLlavaProcessor, info=PrunedLlavaInfo, dummy_inputs=LlavaDummyInputsBuilder
)
class PrunedLlava(LlavaForConditionalGeneration):
    """vLLM's LLaVA, keeping the visual tokens that matter.

    Changes:
    - `embed_multimodal` selects after the tower and projects only what is kept;
    - a known image takes its features from a cache instead of the tower;
    - the tower never encodes more images at once than vLLM's memory profile did;
    - new weights empty that cache;
    - LoRA on the tower is told the tower's own token count.
    Images without settings (rate 0) take the inherited path.
    """

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        tower = self.config.vision_config
        self._clip = isinstance(tower, CLIPVisionConfig)
        self._probe = AttentionProbe(self.vision_tower, tower.num_attention_heads, self._clip)
        self._tokens = visual_tokens(self.config)
        self._images_at_once = compat.profiled_images(vllm_config, self._tokens)
        device = self.vision_tower.device
        kwargs = vllm_config.model_config.get_multimodal_config().mm_processor_kwargs or {}
        size = ServerConfig.parse(kwargs.get(KEY, {})).feature_cache_mb << 20
        self._feature_cache = FeatureCache(
            size, self._tokens, tower.hidden_size, self.vision_tower.dtype, device
        )
        logger.info("vtprune: selection runs on %s", implementation(device))

    def embed_multimodal(self, **kwargs: object) -> Any:
        if not (plans := ImagePlan.pop_all(kwargs)):
            return super().embed_multimodal(**kwargs)
        image_input: Any = self._parse_and_validate_image_input(**kwargs)
        pixels: torch.Tensor = image_input["pixel_values"]
        embeddings: list[torch.Tensor] = []
        for start in range(0, len(plans), self._images_at_once):
            some = slice(start, start + self._images_at_once)
            embeddings += self._embed_pruned(pixels[some], plans[some])
        return embeddings

    def _embed_pruned(self, pixels: torch.Tensor, plans: list[ImagePlan]) -> list[torch.Tensor]:
        """Encode images together, then select and project those with equal settings together."""
        features, importance = self._features(pixels, [plan.image for plan in plans])
        embeddings: list[torch.Tensor] = []
        for config, group in groupby(plans, key=lambda plan: plan.config):
            texts = [plan.text for plan in group]
            some = slice(len(embeddings), len(embeddings) + len(texts))
            embeddings += self._keep(features[some], importance[some], texts, config)
        return embeddings

    def _keep(
        self,
        features: torch.Tensor,
        importance: torch.Tensor,
        texts: list[tuple[int, ...]],
        config: PruneConfig,
    ) -> list[torch.Tensor]:
        """Return the kept rows of each image, projected: `[keep, width of the decoder]` each."""
        projector = self.multi_modal_projector
        if config.off:  # beside an image of the same request that is pruned
            return list(projector(features))
        if not config.resolved[0].needs_text:
            kept = self._select(VisualTokens(features, importance), config)
            return list(projector(gather_rows([features], kept)[0]))
        # Matching a text takes all tokens in the decoder's space, so nothing is projected twice.
        projected = projector(features)
        tokens = VisualTokens(features, importance, projected, self._embed_texts(texts))
        return list(gather_rows([projected], self._select(tokens, config))[0])

    def _embed_texts(self, texts: list[tuple[int, ...]]) -> list[torch.Tensor]:
        """The decoder's input embeddings `[tokens, width]` of each text, looked up together."""
        ids = torch.tensor([token for text in texts for token in text], dtype=torch.int64)
        decoder: Any = self.language_model
        rows: torch.Tensor = decoder.embed_input_ids(
            ids.to(self.vision_tower.device, non_blocking=True)
        )
        return list(rows.split([len(text) for text in texts]))

    def _features(
        self, pixels: torch.Tensor, images: list[str]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return `[images, N, D]` features and `[images, N]` importance, of known images from the
        cache."""
        if ImagePlan.ANONYMOUS in images:
            return self._encode(pixels)

        def encode(rows: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
            # Slices: an index list would be copied to the device and waited for.
            all_rows = len(rows) == len(pixels)
            return self._encode(
                pixels if all_rows else torch.cat([pixels[i : i + 1] for i in rows])
            )

        return self._feature_cache.fetch(images, encode)

    @torch.no_grad()
    def _encode(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the tower: `[images, N, D]` features and `[images, N]` importance."""
        features: Any
        with self._probe.capture() as scores:
            features = self._image_pixels_to_features(self.vision_tower, pixels)
        (importance,) = scores
        # A SigLIP tower with the strategy "default" drops its first patch as if it were a class.
        importance = importance[:, importance.shape[1] - features.shape[1] :]
        return features, self._probe.reduce(importance)

    @torch.no_grad()
    def _select(self, tokens: VisualTokens, config: PruneConfig) -> torch.Tensor:
        """Return the kept indices `[images, keep]`, the same on every rank.

        Equal features give equal indices; ranks agree on theirs because an all-reduce ends in the
        same bits everywhere. A backend that broke this would mix the tokens of two selections, so
        the first rank's choice is sent to the others: a few hundred bytes.
        """
        method, options = config.resolved
        keep = config.keep_count(tokens.features.shape[1])
        kept = method.select(tokens, keep, options)
        if get_tp_group().world_size > 1:
            kept = get_tp_group().broadcast(kept.contiguous(), src=0)
        return kept

    def load_weights(self, weights: Any) -> set[str]:
        self._feature_cache.clear()  # made with the old ones
        return super().load_weights(weights)

    def get_mm_lora_token_counts(
        self, *, modality: str, mm_kwargs: Any, num_mm_embeds: int
    ) -> tuple[int, int | None]:
        return self._tokens, num_mm_embeds
