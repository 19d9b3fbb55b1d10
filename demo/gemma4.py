"""Writes a demo Gemma 4."""

import re
from pathlib import Path

import torch
from shapes import HEAD_SIZE, Gemma4Shape
from tokenizer import VOCABULARY, tokenizer_of, unspoken_ids
from transformers import (
    Gemma4AudioFeatureExtractor,
    Gemma4Config,
    Gemma4ForConditionalGeneration,
    Gemma4ImageProcessor,
    Gemma4Processor,
    Gemma4VideoProcessor,
    GenerationConfig,
)
from weights import draw_under_own_names, save_weights, shapes_of

HERE = Path(__file__).parent
MEDIA_TOKENS = {
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "image_token": "<|image|>",
    "video_token": "<|video|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
    "audio_token": "<|audio|>",
}
SPECIAL = ["<pad>", "<eos>", "<bos>", "<|turn>", "<turn|>", *MEDIA_TOKENS.values()]
PAD, EOS, BOS, _, END, *MEDIA = range(len(SPECIAL))
WIDTH, LAYERS, PLE = 128, 2, 32
"""Of the tower, and of the decoder's embeddings for each layer."""
POSITIONS = 3 * 1120
"""Patches in a row of the longest picture."""


def config(shape: Gemma4Shape) -> Gemma4Config:
    boi, eoi, image, video, boa, eoa, audio = MEDIA
    return Gemma4Config(
        architectures=["Gemma4ForConditionalGeneration"],
        text_config={
            "vocab_size": VOCABULARY,
            "vocab_size_per_layer_input": VOCABULARY,
            "hidden_size_per_layer_input": PLE,
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_hidden_layers": 4,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "num_kv_shared_layers": 2,
            "sliding_window": shape.window,
            "num_attention_heads": WIDTH // HEAD_SIZE,
            "num_key_value_heads": 1,
            "head_dim": HEAD_SIZE,
            "global_head_dim": 2 * HEAD_SIZE,
            "max_position_embeddings": 8192,
            "use_bidirectional_attention": "vision",
            "tie_word_embeddings": False,
            "pad_token_id": PAD,
            "eos_token_id": EOS,
            "bos_token_id": BOS,
            "dtype": "float32",
        },
        vision_config={
            "hidden_size": WIDTH,
            "intermediate_size": 4 * WIDTH,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": WIDTH // HEAD_SIZE,
            "num_key_value_heads": WIDTH // HEAD_SIZE,
            "head_dim": HEAD_SIZE,
            "position_embedding_size": POSITIONS,
            "default_output_length": shape.tokens,
            "standardize": True,
        },
        boi_token_id=boi,
        eoi_token_id=eoi,
        image_token_id=image,
        video_token_id=video,
        boa_token_id=boa,
        eoa_token_index=eoa,
        audio_token_id=audio,
        tie_word_embeddings=False,
        dtype="float32",
    )


def scaled(name: str, weight: torch.Tensor) -> torch.Tensor:
    """A weight as Gemma 4 applies it: logits are not divided by the root of a head's size, and
    embeddings are multiplied by the root of their width."""
    generator = torch.Generator().manual_seed(len(name))
    if re.search(r"(q|k)_norm\.weight", name):
        return torch.full_like(weight, 0.5)
    if name.endswith("layer_scalar"):
        return torch.ones_like(weight)
    if name.endswith("std_bias"):
        return torch.randn(weight.shape, generator=generator)
    if name.endswith("std_scale"):
        return torch.rand(weight.shape, generator=generator) + 0.1
    return weight / WIDTH**0.5 if name.endswith("embed_tokens.weight") else weight


def write(shape: Gemma4Shape, folder: Path) -> None:
    ends = {"bos_token_id": BOS, "eos_token_id": [EOS, END], "pad_token_id": PAD}
    GenerationConfig(**ends).save_pretrained(folder)
    words = tokenizer_of(
        SPECIAL,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        extra_special_tokens=MEDIA_TOKENS,
        chat_template=(HERE / "gemma4_template.jinja").read_text(),
    )
    settings = config(shape)
    settings.save_pretrained(folder)
    Gemma4Processor(
        Gemma4AudioFeatureExtractor(),
        Gemma4ImageProcessor(max_soft_tokens=shape.tokens),
        words,
        Gemma4VideoProcessor(),
        chat_template=words.chat_template,
        image_seq_length=shape.tokens,
    ).save_pretrained(folder)
    weights = draw_under_own_names(
        shapes_of(Gemma4ForConditionalGeneration, settings), shape.seed, unspoken_ids(words)
    )
    save_weights({name: scaled(name, each) for name, each in weights.items()}, folder)
