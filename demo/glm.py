"""Writes a demo GLM-4.1V, or a GLM-4.6V with experts, the way the published checkpoints are laid
out."""

from pathlib import Path
from typing import Any

import torch
from shapes import HEAD_SIZE, GlmShape
from tokenizer import VOCABULARY, tokenizer_of, unspoken_ids
from transformers import (
    GenerationConfig,
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Glm4vImageProcessor,
    Glm4vMoeConfig,
    Glm4vMoeForConditionalGeneration,
    Glm4vProcessor,
    Glm4vVideoProcessor,
    Glm46VImageProcessor,
    Glm46VProcessor,
    Glm46VVideoProcessor,
    PreTrainedTokenizerFast,
)
from weights import draw_under_own_names, save_weights, shapes_of

HERE = Path(__file__).parent
SPECIAL = [
    *("<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>"),
    *("<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>"),
    *("<|image|>", "<|video|>"),
]
ENDOFTEXT = SPECIAL.index("<|endoftext|>")
USER = SPECIAL.index("<|user|>")
WIDTH, PATCH, FRAMES = 128, 14, 2
TOKENS = {"shortest_edge": 4, "longest_edge": 256}
"""Of an image; of a video too."""


def text_config(shape: GlmShape) -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
    common: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": shape.text_layers,
        "num_attention_heads": WIDTH // HEAD_SIZE,
        "num_key_value_heads": WIDTH // HEAD_SIZE,
        "max_position_embeddings": 8192,
        "attention_bias": True,
        "tie_word_embeddings": False,
        "rope_parameters": {**rope, "mrope_section": [4, 6, 6]},
        "eos_token_id": [ENDOFTEXT, USER],
        "pad_token_id": ENDOFTEXT,
        "dtype": "float32",
    }
    if shape.experts:
        common |= {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 192}
        common |= {"head_dim": HEAD_SIZE, "use_qk_norm": False}
    return common


def glm_config(shape: GlmShape) -> Any:
    kind = Glm4vMoeConfig if shape.experts else Glm4vConfig
    return kind(
        architectures=[_model(shape).__name__],
        text_config=text_config(shape),
        vision_config={
            "depth": 4,
            "hidden_size": WIDTH,
            "num_heads": WIDTH // HEAD_SIZE,
            "image_size": 336,
            "patch_size": PATCH,
            "temporal_patch_size": FRAMES,
            "out_hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
        },
        tie_word_embeddings=False,
        dtype="float32",
        **token_ids(),
    )


def token_ids() -> dict[str, int]:
    """Of images and videos, by the names of a configuration."""
    return {
        "image_token_id": SPECIAL.index("<|image|>"),
        "video_token_id": SPECIAL.index("<|video|>"),
        "image_start_token_id": SPECIAL.index("<|begin_of_image|>"),
        "image_end_token_id": SPECIAL.index("<|end_of_image|>"),
        "video_start_token_id": SPECIAL.index("<|begin_of_video|>"),
        "video_end_token_id": SPECIAL.index("<|end_of_video|>"),
    }


def _model(shape: GlmShape) -> Any:
    return Glm4vMoeForConditionalGeneration if shape.experts else Glm4vForConditionalGeneration


def save_processor(shape: GlmShape, words: PreTrainedTokenizerFast, folder: Path) -> None:
    kind, images, videos = Glm4vProcessor, Glm4vImageProcessor, Glm4vVideoProcessor
    if shape.experts:
        kind, images, videos = Glm46VProcessor, Glm46VImageProcessor, Glm46VVideoProcessor
    size = {edge: tokens * FRAMES * (2 * PATCH) ** 2 for edge, tokens in TOKENS.items()}
    processor = kind(
        image_processor=images(size=size),
        tokenizer=words,
        video_processor=videos(size=size),
        chat_template=(HERE / "glm_template.jinja").read_text(),
    )
    processor.save_pretrained(folder)


def one_by_one(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The experts of a layer under names of their own, as they are published."""
    found: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        layer, is_expert, matrix = name.partition(".experts.")
        if not is_expert:
            found[name] = weight
            continue
        parts = matrix.replace("gate_up", "gate up").replace("_proj", "").split()
        for number, expert in enumerate(weight.transpose(1, 2)):
            for part, rows in zip(parts, expert.chunk(len(parts)), strict=True):
                found[f"{layer}.experts.{number}.{part}_proj.weight"] = rows.contiguous()
    return found


def tokenizer() -> PreTrainedTokenizerFast:
    return tokenizer_of(
        SPECIAL,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={"image_token": "<|image|>", "video_token": "<|video|>"},
    )


def write(shape: GlmShape, folder: Path) -> None:
    config, words = glm_config(shape), tokenizer()
    config.save_pretrained(folder)
    ends = {"eos_token_id": [ENDOFTEXT, USER], "pad_token_id": ENDOFTEXT}
    GenerationConfig(**ends).save_pretrained(folder)
    save_processor(shape, words, folder)
    shapes = shapes_of(_model(shape), config)
    weights = draw_under_own_names(shapes, shape.seed, unspoken_ids(words))
    save_weights(one_by_one(weights), folder)
