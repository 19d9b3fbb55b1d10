"""Writes a demo Llama 4."""

from pathlib import Path
from typing import Any

import torch
from shapes import HEAD_SIZE, PATCH_SIZE
from tile_shapes import Llama4Shape
from tokenizer import VOCABULARY, tokenizer_of, unspoken_ids
from transformers import (
    GenerationConfig,
    Llama4Config,
    Llama4ForConditionalGeneration,
    Llama4ImageProcessor,
    Llama4Processor,
    PreTrainedTokenizerFast,
)
from weights import draw_under_own_names, save_weights, shapes_of

HERE = Path(__file__).parent
SPECIAL = [
    *("<|begin_of_text|>", "<|end_of_text|>", "<|header_start|>", "<|header_end|>", "<|eot|>"),
    *("<|image_start|>", "<|image_end|>", "<|tile_x_separator|>", "<|tile_y_separator|>"),
    *("<|image|>", "<|patch|>"),
]
BEGIN, END_OF_TEXT, _, _, END, IMAGE_START, IMAGE_END, _, _, _, PATCH = range(len(SPECIAL))
WIDTH, LAYERS, MERGED = 128, 4, 192
"""Of the tower, and of a token that it makes of patches."""


def config(shape: Llama4Shape) -> Llama4Config:
    rope: Any = {"rope_type": "default"}
    return Llama4Config(
        architectures=["Llama4ForConditionalGeneration"],
        text_config={
            "vocab_size": VOCABULARY,
            "hidden_size": WIDTH,
            "intermediate_size": WIDTH,
            "intermediate_size_mlp": 2 * WIDTH,
            "num_hidden_layers": 2,
            "num_attention_heads": WIDTH // HEAD_SIZE,
            "num_key_value_heads": WIDTH // HEAD_SIZE,
            "head_dim": HEAD_SIZE,
            "num_local_experts": 4,
            "interleave_moe_layer_step": 2,
            "no_rope_layer_interval": 2,
            "attention_chunk_size": shape.chunk,
            "max_position_embeddings": 8192,
            "rope_parameters": {**rope, "rope_theta": 500000.0},
            "bos_token_id": BEGIN,
            "eos_token_id": END,
            "pad_token_id": END_OF_TEXT,
            "dtype": "float32",
        },
        vision_config={
            "hidden_size": WIDTH,
            "intermediate_size": 4 * WIDTH,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": WIDTH // HEAD_SIZE,
            "image_size": shape.image_size,
            "patch_size": PATCH_SIZE,
            "projector_input_dim": MERGED,
            "projector_output_dim": MERGED,
            "vision_output_dim": MERGED,
            "rope_parameters": {**rope, "rope_theta": 10000.0},
        },
        boi_token_index=IMAGE_START,
        eoi_token_index=IMAGE_END,
        image_token_index=PATCH,
        tie_word_embeddings=False,
        dtype="float32",
    )


def processor(shape: Llama4Shape, words: PreTrainedTokenizerFast) -> Llama4Processor:
    size = {"height": shape.image_size, "width": shape.image_size}
    images = Llama4ImageProcessor(size=size, max_patches=shape.tiles)
    return Llama4Processor(images, words, patch_size=PATCH_SIZE, chat_template=words.chat_template)


def drawn(settings: Llama4Config, seed: int, silent: list[int]) -> dict[str, torch.Tensor]:
    shapes = shapes_of(Llama4ForConditionalGeneration, settings)
    for name, each in shapes.items():
        if ".experts." in name:  # `draw_under_own_names` gets outputs first, and swaps them
            shapes[name] = torch.Size((each[0], each[2], each[1]))
    weights = draw_under_own_names(shapes, seed, silent, "language_model.lm_head.weight")
    projector = weights["multi_modal_projector.linear_1.weight"]
    projector -= projector.mean(dim=1, keepdim=True)  # its input is GELU's output
    return weights


def write(shape: Llama4Shape, folder: Path) -> None:
    ends = {"bos_token_id": BEGIN, "eos_token_id": END, "pad_token_id": END_OF_TEXT}
    GenerationConfig(**ends).save_pretrained(folder)
    words = tokenizer_of(
        SPECIAL,
        bos_token="<|begin_of_text|>",
        eos_token="<|eot|>",
        pad_token="<|end_of_text|>",
        chat_template=(HERE / "llama4_template.jinja").read_text(),
    )
    settings = config(shape)
    settings.save_pretrained(folder)
    processor(shape, words).save_pretrained(folder)
    save_weights(drawn(settings, shape.seed, unspoken_ids(words)), folder)
