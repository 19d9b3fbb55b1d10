"""Writes a demo Gemma 3."""

import re
from pathlib import Path

import torch
from shapes import HEAD_SIZE, PATCH_SIZE, GemmaShape
from tokenizer import VOCABULARY, tokenizer_of, unspoken_ids
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
    GenerationConfig,
)
from weights import draw_under_own_names, published_tower, save_weights, shapes_of

HERE = Path(__file__).parent
IMAGE_TOKENS = {
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
    "image_token": "<image_soft_token>",
}
SPECIAL = [
    *("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
    *IMAGE_TOKENS.values(),
    *("\n" * count for count in range(1, 5)),  # single tokens, as in the published vocabulary
]
PAD, EOS, BOS, _, END, START_OF_IMAGE, END_OF_IMAGE, IMAGE = range(8)
WIDTH, LAYERS = 128, 4
"""Of the tower."""


def config(shape: GemmaShape) -> Gemma3Config:
    return Gemma3Config(
        architectures=["Gemma3ForConditionalGeneration"],
        text_config={
            "vocab_size": VOCABULARY,
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_hidden_layers": 2,
            "layer_types": ["sliding_attention", "full_attention"],
            "sliding_window": shape.window,
            "num_attention_heads": WIDTH // HEAD_SIZE,
            "num_key_value_heads": 1,
            "head_dim": HEAD_SIZE,
            "query_pre_attn_scalar": HEAD_SIZE,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": False,
            "dtype": "float32",
        },
        vision_config={
            "hidden_size": WIDTH,
            "intermediate_size": 4 * WIDTH,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": WIDTH // HEAD_SIZE,
            "image_size": shape.image_size,
            "patch_size": PATCH_SIZE,
            "vision_use_head": False,
        },
        mm_tokens_per_image=shape.tokens,
        boi_token_index=START_OF_IMAGE,
        eoi_token_index=END_OF_IMAGE,
        image_token_index=IMAGE,
        tie_word_embeddings=False,
        dtype="float32",
    )


def scaled(name: str, weight: torch.Tensor) -> torch.Tensor:
    """A weight as Gemma applies it: norms multiply by one more than theirs, embeddings by the root
    of their width."""
    if re.search(r"(q|k)_norm\.weight", name):
        return torch.full_like(weight, 0.7)
    if re.search(r"(language_model|multi_modal_projector)\..*norm\.weight", name):
        return torch.zeros_like(weight)
    return weight / WIDTH**0.5 if name.endswith("embed_tokens.weight") else weight


def write(shape: GemmaShape, folder: Path) -> None:
    ends = {"bos_token_id": BOS, "eos_token_id": [EOS, END], "pad_token_id": PAD}
    GenerationConfig(**ends).save_pretrained(folder)
    words = tokenizer_of(
        SPECIAL,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        extra_special_tokens=IMAGE_TOKENS,
        chat_template=(HERE / "gemma_template.jinja").read_text(),
    )
    settings, side = config(shape), shape.image_size
    settings.save_pretrained(folder)
    Gemma3Processor(
        Gemma3ImageProcessor(size={"height": side, "width": side}),
        words,
        chat_template=words.chat_template,
        image_seq_length=shape.tokens,
    ).save_pretrained(folder)
    shapes = shapes_of(Gemma3ForConditionalGeneration, settings)
    shapes = {published_tower(name): each for name, each in shapes.items()}
    weights = draw_under_own_names(shapes, shape.seed, unspoken_ids(words))
    save_weights({name: scaled(name, each) for name, each in weights.items()}, folder)
