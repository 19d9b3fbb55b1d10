"""Writes a demo GLM-OCR the way the published checkpoint is laid out."""

from pathlib import Path

from glm import (
    ENDOFTEXT,
    FRAMES,
    HERE,
    PATCH,
    TOKENS,
    USER,
    WIDTH,
    token_ids,
    tokenizer,
)
from reader_shapes import GlmOcrShape
from shapes import HEAD_SIZE
from tokenizer import VOCABULARY, unspoken_ids
from transformers import (
    GenerationConfig,
    Glm46VImageProcessor,
    Glm46VProcessor,
    Glm46VVideoProcessor,
    GlmOcrConfig,
    GlmOcrForConditionalGeneration,
)
from weights import draw_under_own_names, save_weights, shapes_of


def glm_ocr_config(shape: GlmOcrShape) -> GlmOcrConfig:
    return GlmOcrConfig(
        architectures=["GlmOcrForConditionalGeneration"],
        text_config={
            "vocab_size": VOCABULARY,
            "hidden_size": WIDTH,
            "intermediate_size": 3 * WIDTH,  # which the tower's merger has too
            "num_hidden_layers": shape.text_layers,
            "num_attention_heads": 2 * WIDTH // HEAD_SIZE,
            "num_key_value_heads": WIDTH // HEAD_SIZE,
            "head_dim": HEAD_SIZE,
            "max_position_embeddings": 8192,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "partial_rotary_factor": 1.0,
                "mrope_section": [8, 12, 12],
            },
            "eos_token_id": [ENDOFTEXT, USER],
            "pad_token_id": ENDOFTEXT,
            "dtype": "float32",
        },
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


def write(shape: GlmOcrShape, folder: Path) -> None:
    config, words = glm_ocr_config(shape), tokenizer()
    config.save_pretrained(folder)
    ends = {"eos_token_id": [ENDOFTEXT, USER], "pad_token_id": ENDOFTEXT}
    GenerationConfig(**ends).save_pretrained(folder)
    size = {edge: tokens * FRAMES * (2 * PATCH) ** 2 for edge, tokens in TOKENS.items()}
    Glm46VProcessor(
        image_processor=Glm46VImageProcessor(size=size),
        tokenizer=words,
        video_processor=Glm46VVideoProcessor(size=size),
        chat_template=(HERE / "glm_template.jinja").read_text(),
    ).save_pretrained(folder)
    shapes = shapes_of(GlmOcrForConditionalGeneration, config)
    save_weights(draw_under_own_names(shapes, shape.seed, unspoken_ids(words)), folder)
