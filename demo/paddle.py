"""Writes a demo PaddleOCR-VL the way the published checkpoint is laid out, but that this has the
configuration of its decoder among the model's own."""

import re
from pathlib import Path

from reader_shapes import PaddleShape
from shapes import HEAD_SIZE
from tokenizer import VOCABULARY, tokenizer_of, unspoken_ids
from transformers import (
    GenerationConfig,
    PaddleOCRVLConfig,
    PaddleOCRVLForConditionalGeneration,
    PaddleOCRVLImageProcessor,
    PaddleOCRVLProcessor,
)
from weights import draw_under_own_names, save_weights, shapes_of

SPECIAL = [
    *("</s>", "<|begin_of_sentence|>", "<|end_of_sentence|>"),
    *("<|IMAGE_START|>", "<|IMAGE_PLACEHOLDER|>", "<|IMAGE_END|>", "<|video_pad|>"),
]
WIDTH, PATCH, TOKENS = 128, 14, 256
"""Tokens of an image at most."""


def paddle_config(shape: PaddleShape) -> PaddleOCRVLConfig:
    rope = {"rope_type": "default", "rope_theta": 5e5, "mrope_section": [8, 12, 12]}
    return PaddleOCRVLConfig(
        architectures=["PaddleOCRVLForConditionalGeneration"],
        text_config={
            "vocab_size": VOCABULARY,
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_hidden_layers": shape.text_layers,
            "num_attention_heads": 2 * WIDTH // HEAD_SIZE,
            "num_key_value_heads": WIDTH // HEAD_SIZE,
            "head_dim": HEAD_SIZE,
            "max_position_embeddings": 8192,
            "rope_parameters": rope,
            "bos_token_id": SPECIAL.index("<|begin_of_sentence|>"),
            "eos_token_id": SPECIAL.index("</s>"),
            "pad_token_id": SPECIAL.index("</s>"),
            "tie_word_embeddings": False,
        },
        vision_config={
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_hidden_layers": 4,
            "num_attention_heads": WIDTH // HEAD_SIZE,
            "image_size": 384,
            "patch_size": PATCH,
        },
        image_token_id=SPECIAL.index("<|IMAGE_PLACEHOLDER|>"),
        video_token_id=SPECIAL.index("<|video_pad|>"),
        vision_start_token_id=SPECIAL.index("<|IMAGE_START|>"),
        vision_end_token_id=SPECIAL.index("<|IMAGE_END|>"),
        tie_word_embeddings=False,
        dtype="float32",
    )


def published(name: str) -> str:
    name = re.sub(r"^model\.visual\.", "visual.", name)
    name = re.sub(r"^model\.projector\.", "mlp_AR.", name)
    return re.sub(r"^model\.language_model\.", "model.", name)


def write(shape: PaddleShape, folder: Path) -> None:
    config = paddle_config(shape)
    config.save_pretrained(folder)
    GenerationConfig(eos_token_id=SPECIAL.index("</s>"), pad_token_id=0).save_pretrained(folder)
    words = tokenizer_of(
        SPECIAL,
        eos_token="</s>",
        pad_token="</s>",
        extra_special_tokens={"image_token": "<|IMAGE_PLACEHOLDER|>"},
    )
    edge = 2 * PATCH
    size = {"shortest_edge": 4 * edge**2, "longest_edge": TOKENS * edge**2}
    PaddleOCRVLProcessor(
        image_processor=PaddleOCRVLImageProcessor(size=size),
        tokenizer=words,
        chat_template=(Path(__file__).parent / "paddle_template.jinja").read_text(),
    ).save_pretrained(folder)
    shapes = shapes_of(PaddleOCRVLForConditionalGeneration, config)
    weights = draw_under_own_names(shapes, shape.seed, unspoken_ids(words))
    save_weights({published(name): weight for name, weight in weights.items()}, folder)
