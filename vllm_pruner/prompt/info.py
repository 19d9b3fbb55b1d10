"""What the prompt's half knows of a model: its family, and the operator's settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from vllm_pruner import compat
from vllm_pruner.layout.cuts import cut_joined
from vllm_pruner.prompt import encoder_only
from vllm_pruner.prompt.array_images import ArrayContext
from vllm_pruner.prompt.names import fresh
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.settings.keys import BYTES, KEY, settings_in
from vllm_pruner.settings.server import ServerConfig
from vllm_pruner.settings.video_rules import before_tower_fault

if TYPE_CHECKING:
    import torch
    from vllm.multimodal.parse import ImageSize
    from vllm.multimodal.processing import BaseProcessingInfo, InputProcessingContext

    from vllm_pruner.family import Family
    from vllm_pruner.layout.cuts import Cut
    from vllm_pruner.layout.layout import Layout
    from vllm_pruner.settings.in_tree import InTree

    _Info = BaseProcessingInfo
else:
    _Info = object

__all__ = ["PrunedInfo"]

_NOTHING: Mapping[str, object] = MappingProxyType({})


class PrunedInfo(_Info):
    """Mixin for a `BaseProcessingInfo`: holds the operator's settings.

    Changes:
    - the context that the rest of vLLM sees no longer has our key in `mm_processor_kwargs`, and is
      an `ArrayContext`;
    - images' token counts come from the family and are unpruned: a request may ask for rate 0, and
      vLLM profiles the tower's memory with the largest, including separators.
    """

    family: Family
    prune_config: ServerConfig
    mark_words: tuple[str, ...] = ()
    """Marks, as `Family.marks`, that the model's configuration does not name."""

    around_message: tuple[str, str] | None = None
    """What is written before and after a user's words; None if the chat template says so."""

    def __init__(self, ctx: InputProcessingContext) -> None:
        self.prune_config = ServerConfig.of(settings_in(ctx.get_mm_config()) or {})
        stripped = compat.without_settings(ctx.model_config, KEY)
        given = {field.name: getattr(ctx, field.name) for field in dataclasses.fields(ctx)}
        super().__init__(ArrayContext(**{**given, "model_config": stripped}))

    @cached_property
    def _most_tokens(self) -> int:
        return self.family.largest(self).tokens

    def get_max_image_tokens(self) -> int:
        """Return the most visual tokens that an image can have, unpruned."""
        return self._most_tokens

    def image_tokens(self, size: ImageSize, mm_kwargs: Mapping[str, object] = _NOTHING) -> int:
        """Return the number of visual tokens of an image, unpruned.

        Args:
            size: its size in pixels, before the processor resizes it.
            mm_kwargs: the request's arguments for the processor.
        """
        if self.family.one_layout:
            return self.get_max_image_tokens()
        return self.family.layout(self, size.height, size.width, mm_kwargs).tokens

    def video_layout(self, item: Mapping[str, Any]) -> Layout:
        """Return the layout of a processed video, given its fields; only if videos are pruned."""
        assert self.family.videos is not None, "its settings were refused"
        return self.family.videos.item_layout(self.get_hf_config(), item)

    def separators(self, size: ImageSize, mm_kwargs: Mapping[str, object]) -> int:
        """Return the number of the model's own rows in a pruned image; see `Family.separators`."""
        if self.family.separators is None:
            return 0
        return self.family.rows(self.family.layout(self, size.height, size.width, mm_kwargs), 0)

    def seen(self, item: Mapping[str, Any]) -> torch.Tensor:
        """Return the pixels of one processed image for a person to see; see `Family.seen`."""
        if BYTES in item:
            item = {**item, "pixel_values": item[BYTES].movedim(-1, -3)}
        return self.family.seen(self.get_hf_config(), item)

    def normalisation(self) -> tuple[Sequence[float], Sequence[float]]:
        """Return mean and standard deviation of each colour, with which pixels are normalised."""
        image_processor = self.get_hf_processor().image_processor
        return image_processor.image_mean, image_processor.image_std

    def cut_of(self, modality: str, config: PruneConfig, item: Mapping[str, Any]) -> Cut:
        """Return how the placeholders of an image or a video, given its fields, with these settings
        are cut."""
        videos = self.family.videos
        if modality == "image" or videos is None:
            return self.family.cut
        return cut_joined if videos.joins(config) else videos.cut

    @property
    def image_token(self) -> int:
        """The id of the placeholder, one for each token of an image."""
        return int(getattr(self.get_hf_config(), self.family.image_token))

    @property
    def image_sign(self) -> int:
        """The id of the token that marks an image in a prompt before it is expanded to
        placeholders."""
        return self.image_token

    def signed(self, prompt: list[int]) -> list[int]:
        """Return the tokens of a prompt in which `image_sign` stands once for each image."""
        return prompt

    @property
    def video_token(self) -> int | None:
        """The id of the token that stands for a video; None if videos are not pruned."""
        videos = self.family.videos
        return None if videos is None else int(getattr(self.get_hf_config(), videos.token))

    @property
    def video_sign(self) -> int | None:
        """The same as `image_sign` for a video; None if videos are not pruned."""
        return self.video_token

    @property
    def item_tokens(self) -> frozenset[int]:
        """The ids of the image token and, if any, the video token."""
        tokens = (self.image_token, self.video_token)
        return frozenset(token for token in tokens if token is not None)

    @property
    def marks(self) -> frozenset[int]:
        """The ids of the tokens that stand for an image or video, or that the chat template puts
        around one."""
        hf_config = self.get_hf_config()
        named = {int(getattr(hf_config, name)) for name in self.family.marks}
        words = self.get_tokenizer().get_vocab() if self.mark_words else {}
        spelled = {words[mark] for mark in self.mark_words if mark in words}
        return self.item_tokens | named | spelled

    @cached_property
    def video_marks(self) -> Mapping[int, str]:
        """The text of each token around a video whose frames consist of image tokens, by id; empty
        for other models."""
        hf_config, tokenizer = self.get_hf_config(), self.get_tokenizer()
        ids = [int(getattr(hf_config, name)) for name in self.family.video_marks]
        return {token: tokenizer.decode([token]) for token in ids}

    @staticmethod
    def fresh_name(name: object) -> str:
        """Return a `uuid` for an image under which no cache has it; see `names.fresh`."""
        return fresh(name)

    @cached_property
    def in_tree(self) -> InTree | None:
        """How vLLM itself prunes the videos; None if it leaves them to us."""
        return compat.in_tree(self.ctx.get_mm_config())

    @cached_property
    def prefills(self) -> bool:
        """Whether this engine prefills prompts. One that only encodes passes requests on to another
        engine, which counts them."""
        return not encoder_only.lacks_language_model(self.ctx.model_config)

    def fault(self, config: PruneConfig) -> ConfigError | None:
        """Return what is wrong with settings for this model, or None."""
        try:
            self.family.check(self.get_hf_config(), config)
        except ConfigError as error:
            return error
        if encoder_only.lacks_language_model(self.ctx.model_config):
            return encoder_only.fault(config)
        return None

    def video_fault(self, config: PruneConfig) -> ConfigError | None:
        """Return what is wrong with a video's settings for this model, or None."""
        if config.off:
            return None
        if self.family.videos is None:
            return ConfigError(
                f"the message has a video, but those of {self.family.name} cannot be pruned; "
                "allowed: video_rate 0, which leaves videos whole"
            )
        if found := before_tower_fault(config):
            return found
        if encoder_only.lacks_language_model(self.ctx.model_config):
            return encoder_only.video_fault(config, self.family.videos) or self.fault(config)
        return self.fault(config)

    def get_mm_max_tokens_per_item(
        self, seq_len: int, mm_counts: Mapping[str, int]
    ) -> Mapping[str, int]:
        others = super().get_mm_max_tokens_per_item(seq_len, mm_counts) or {}
        largest = self.family.largest(self)
        return {**others, "image": self.family.rows(largest, largest.tokens)}
