"""The answering demo model: LLaVA-1.5's modules, narrow, with forwards that take part of an image.

A training step may use only some of the patches. The tower, which takes most of a step's time, then
runs on these alone, with their own position embeddings.
"""

from __future__ import annotations

import torch
from batches import GRID, PATCH, SEEN
from torch import nn
from torch.nn import functional as F
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)
from vocabulary import BOS, EOS, IDS, IMAGE, PAD, USER

WIDTH, HEADS = 128, 4
TOWER_LAYERS, TEXT_LAYERS = 4, 3
"""The tower's features leave it before its last layer, which is therefore never run."""


def config() -> LlavaConfig:
    vision = CLIPVisionConfig(
        image_size=GRID * PATCH,
        patch_size=PATCH,
        hidden_size=WIDTH,
        intermediate_size=384,
        num_hidden_layers=TOWER_LAYERS,
        num_attention_heads=HEADS,
        projection_dim=WIDTH,
    )
    text = LlamaConfig(
        vocab_size=len(IDS),
        hidden_size=WIDTH,
        intermediate_size=288,
        num_hidden_layers=TEXT_LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        tie_word_embeddings=False,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
        dtype="float32",
    )
    return LlavaConfig(
        architectures=["LlavaForConditionalGeneration"],
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE,
        image_seq_length=GRID * GRID,
        projector_hidden_act="gelu",
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
        dtype="float32",
    )


class Answerer(nn.Module):
    """LLaVA with a head for training only: the class token's report of what is in the image."""

    lead, trail = 2, 0
    """Tokens before and after those of the image that all questions share."""

    def __init__(self) -> None:
        super().__init__()
        self.llava = LlavaForConditionalGeneration(config())
        self.report = nn.Linear(WIDTH, len(SEEN))
        words = self.llava.model.language_model.embed_tokens.weight
        nn.init.orthogonal_(words)  # 90 words have room in 128 dimensions
        vision = self.llava.model.vision_tower
        vision = getattr(vision, "vision_model", vision)
        self.embeddings, self.enter = vision.embeddings, vision.pre_layrnorm
        self.layers = vision.encoder.layers[: TOWER_LAYERS - 1]

    @property
    def decoder(self) -> nn.Module:
        return self.llava.model.language_model

    @property
    def words(self) -> torch.Tensor:
        """The decoder's embeddings, which are also its output matrix."""
        weight: torch.Tensor = self.decoder.embed_tokens.weight
        return weight

    def see(
        self, patches: torch.Tensor, which: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Encode the patches `which` [B, K] of `patches` [B, K, 588].

        Returns:
            The projected visual tokens [B, K, D], the class token's report [B, S], and what
            entered the last layer [B, 1 + K, D].
        """
        kernel = self.embeddings.patch_embedding.weight.flatten(1)
        place = self.embeddings.position_embedding.weight
        x = F.linear(patches, kernel) + place[which + 1]
        first = (self.embeddings.class_embedding + place[0]).expand(len(x), 1, -1)
        x = self.enter(torch.cat([first, x], 1))
        before = x
        for layer in self.layers:
            before = x
            x = layer(x, attention_mask=None)
            x = x[0] if isinstance(x, tuple) else x
        return self.llava.model.multi_modal_projector(x[:, 1:]), self.report(x[:, 0]), before

    def answer(
        self, visual: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor, place: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Logits [B, L, V] of the text tokens, and the layers' inputs [B, 2+K+L, D]; `mask`
        [1, 1, 2+K+L, 2+K+L] is added to the scores."""
        prefix = self.words[torch.tensor([BOS, USER])].expand(len(tokens), -1, -1)
        x = torch.cat([prefix, visual, self.words[tokens]], 1)
        out = self.decoder(
            inputs_embeds=x,
            attention_mask=mask,
            position_ids=place,
            use_cache=False,
            output_hidden_states=True,
        )
        hidden = out.last_hidden_state[:, -tokens.shape[1] :]
        return F.linear(hidden, self.words), out.hidden_states


def question_mask(shared: int, which: torch.Tensor) -> torch.Tensor:
    """A causal mask [1, 1, S+L, S+L] of 0 and -inf in which each question attends to itself and to
    the `shared` tokens before the questions."""
    question = torch.cat([torch.full((shared,), -1), which])
    visible = (question[None, :] == question[:, None]) | (question[None, :] == -1)
    visible &= torch.ones_like(visible).tril()
    return torch.zeros(visible.shape).masked_fill(~visible, float("-inf"))[None, None]


def positions(kept: int, place: torch.Tensor) -> torch.Tensor:
    """Position ids [1, 2+K+L]: every question begins right after the image."""
    return torch.cat([torch.arange(2 + kept), 2 + kept + place])[None]
