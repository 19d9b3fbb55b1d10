"""The answering demo Qwen2.5-VL: its modules, narrow, over a batch of pictures of one shape.

Window attention is a mask here, so that patches stay in the processor's order and a batch is one
call; `qwen_export.py` compares the result with transformers' own forward.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from batches import PATCH, SEEN
from torch import nn
from torch.nn import functional as F
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    apply_rotary_pos_emb_vision,
    get_vision_position_ids,
    get_vision_window_index,
)
from vocabulary import IDS, QWEN

WIDTH, HEADS = 128, 4
TOWER_LAYERS, TEXT_LAYERS = 4, 3
WHOLE = [1, 3]
"""Tower layers that attend to the whole picture; the others attend within windows of 112 pixels."""
LEAD = [QWEN["<|im_start|>"], QWEN["user"], QWEN["<|vision_start|>"]]


def config() -> Qwen2_5_VLConfig:
    ends = {"bos_token_id": QWEN["<|endoftext|>"], "eos_token_id": QWEN["<|im_end|>"]}
    text = {
        "vocab_size": len(IDS) + 3,
        "hidden_size": WIDTH,
        "intermediate_size": 288,
        "num_hidden_layers": TEXT_LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "mrope_section": [4, 6, 6],
        },
        "tie_word_embeddings": False,
        **ends,
        "pad_token_id": QWEN["<|endoftext|>"],
        "dtype": "float32",
    }
    vision = {
        "depth": TOWER_LAYERS,
        "hidden_size": WIDTH,
        "intermediate_size": 256,
        "num_heads": HEADS,
        "out_hidden_size": WIDTH,
        "patch_size": PATCH,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": WHOLE,
        "tokens_per_second": 2,
    }
    return Qwen2_5_VLConfig(
        architectures=["Qwen2_5_VLForConditionalGeneration"],
        text_config=text,
        vision_config=vision,
        image_token_id=QWEN["<|image_pad|>"],
        video_token_id=QWEN["<|video_pad|>"],
        vision_start_token_id=QWEN["<|vision_start|>"],
        vision_end_token_id=QWEN["<|vision_end|>"],
        tie_word_embeddings=False,
        dtype="float32",
    )


class QwenAnswerer(nn.Module):
    """Qwen2.5-VL with a head for training only: the background's report of what is in the image."""

    lead, trail = len(LEAD), 1
    """Tokens before and after those of the picture that all questions share."""

    def __init__(self) -> None:
        super().__init__()
        self.qwen = Qwen2_5_VLForConditionalGeneration(config())
        self.report = nn.Linear(WIDTH, len(SEEN))
        nn.init.orthogonal_(self.words)

    @property
    def tower(self) -> nn.Module:
        return self.qwen.model.visual

    @property
    def decoder(self) -> nn.Module:
        return self.qwen.model.language_model

    @property
    def words(self) -> torch.Tensor:
        """The decoder's embeddings, which are also its output matrix."""
        weight: torch.Tensor = self.decoder.embed_tokens.weight
        return weight

    def see(
        self, patches: torch.Tensor, grid: tuple[int, int]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Encode normalised patches [B, 4 N, 588] of pictures of `grid` tokens.

        Returns:
            The merged tokens [B, N, D], the last layer's output [B, 4 N, D], and its input.
        """
        turn, window = _places(self.tower, grid)
        kernel = self.tower.patch_embed.proj.weight.sum(2)  # an image is two equal frames
        x = F.linear(patches, kernel.flatten(1))
        before = x
        for i, block in enumerate(self.tower.blocks):
            before = x
            x = x + self._attend(block, block.norm1(x), turn, None if i in WHOLE else window)
            x = x + block.mlp(block.norm2(x))
        merged = self.tower.merger(x.flatten(0, 1)).unflatten(0, (len(x), -1))
        return merged, x, before

    def scores(
        self, block: nn.Module, x: torch.Tensor, grid: tuple[int, int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries and keys [B, H, 4 N, D / H] of a layer, rotated; `x` is the layer's input."""
        query, key, _ = _split(block, block.norm1(x), _places(self.tower, grid)[0])
        return query, key

    @staticmethod
    def _attend(
        block: nn.Module,
        x: torch.Tensor,
        turn: tuple[torch.Tensor, torch.Tensor],
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        query, key, value = _split(block, x, turn)
        out = F.scaled_dot_product_attention(query, key, value, mask)
        projected: torch.Tensor = block.attn.proj(out.transpose(1, 2).flatten(2))
        return projected

    def answer(
        self, visual: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor, place: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Logits [B, L, V] of the text tokens, and the layers' inputs [B, 4+K+L, D]; `mask`
        [1, 1, 4+K+L, 4+K+L] is added to the scores; `place` [3, B, 4+K+L] is time, row, column."""
        lead = self.words[torch.tensor(LEAD)].expand(len(tokens), -1, -1)
        trail = self.words[torch.tensor([QWEN["<|vision_end|>"]])].expand(len(tokens), -1, -1)
        out = self.decoder(
            inputs_embeds=torch.cat([lead, visual, trail, self.words[tokens]], 1),
            attention_mask={"full_attention": mask},
            position_ids=place,
            use_cache=False,
            output_hidden_states=True,
        )
        hidden = out.last_hidden_state[:, -tokens.shape[1] :]
        return F.linear(hidden, self.words), out.hidden_states


def _split(
    block: nn.Module, x: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    query, key, value = block.attn.qkv(x).unflatten(-1, (3, HEADS, WIDTH // HEADS)).unbind(2)
    query, key = apply_rotary_pos_emb_vision(query, key, *turn)
    return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)


@lru_cache(maxsize=32)
def _places(
    tower: nn.Module, grid: tuple[int, int]
) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    """For the patches of a grid, the rotary cosines and sines [4 N, D / H], and whether two patches
    share a window [4 N, 4 N]."""
    thw = torch.tensor([[1, 2 * grid[0], 2 * grid[1]]])
    cos, sin = tower.rotary_pos_emb(torch.zeros(1), get_vision_position_ids(thw, 2))
    order, ends = get_vision_window_index(thw, spatial_merge_size=2, window_size=112, patch_size=14)
    window = torch.searchsorted(ends, 4 * torch.arange(len(order)), right=True)
    of_token = torch.empty_like(window).scatter_(0, order, window)
    of_patch = of_token.repeat_interleave(4)
    return (cos.detach(), sin.detach()), of_patch[:, None] == of_patch


def positions(grid: tuple[int, int], which: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Position ids [3, B, 4+K+L], time, row and column: the tokens `which` [B, K] keep those that
    they have in the whole grid; every question begins right after the picture."""
    lead = len(LEAD)
    rows, columns = lead + which // grid[1], lead + which % grid[1]
    visual = torch.stack([torch.full_like(rows, lead), rows, columns])
    after = lead + max(grid)
    text = torch.cat([torch.tensor([after]), after + 1 + place])

    def everywhere(of_text: torch.Tensor) -> torch.Tensor:
        return of_text.expand(3, len(which), -1)

    return torch.cat([everywhere(torch.arange(lead)), visual, everywhere(text)], 2)
