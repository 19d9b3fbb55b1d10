"""Writes a demo Qwen4-Exp the way its published checkpoint is laid out: Qwen3.5's tower and
processor before a decoder with several streams of residuals (hyper-connections) and embeddings of
n-grams in some layers (PLE). But no index makes its attention sparse: with one, vLLM's class builds
on a GPU alone."""

from pathlib import Path
from typing import Any

import torch
from qwen import (
    IMAGE,
    VIDEO,
    VISION_END,
    VISION_START,
    as_qwen3_5,
    save_processor,
    text_config,
    tokenizer,
    vision_config,
)
from shapes import QwenShape
from tokenizer import unspoken_ids
from transformers import Qwen4ExpConfig, Qwen4ExpForConditionalGeneration
from weights import draw_under_own_names, save_weights, shapes_of

SHARDS = 2
"""Files' parts of a table of n-grams; 512 as published."""

STREAMS = {"hc_count": 2, "hc_lowrank": 32}
NGRAMS = {"ple_layer_ids": [1, 3], "ngram_vocab_size_base": 500, "heads_per_ngram": 2}
INDEX = {"n_heads": 2, "kv_heads": 1, "head_dim": 64, "budget": 64, "compress_ratio": 16}
"""Without which transformers makes no model, and so no names and shapes."""

OTHERS = ("intermediate_size", "decoder_sparse_step", "mlp_only_layers")
"""Fields of Qwen3.5's that Qwen4-Exp has not."""


def qwen4_config(shape: QwenShape, **index: int) -> Any:
    fields = {name: value for name, value in text_config(shape).items() if name not in OTHERS}
    layers = ["linear_attention", "indexed_attention"] * (shape.text_layers // 2)
    fields |= STREAMS | NGRAMS | {f"indexer_{name}": number for name, number in index.items()}
    fields |= {"layer_types": layers, "split_ngram_parts": SHARDS, "output_gate_type": "sigmoid"}
    return Qwen4ExpConfig(
        architectures=["Qwen4ExpForConditionalGeneration"],
        text_config=fields,
        vision_config=vision_config(shape),
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
        tie_word_embeddings=False,
        dtype=shape.dtype,
    )


def write_qwen4(seed: int, folder: Path) -> None:
    shape, words = QwenShape("3.5-moe", 4, seed, dtype="bfloat16"), tokenizer()
    save_config(qwen4_config(shape), folder)
    save_processor(shape, words, folder)
    shapes = shapes_of(Qwen4ExpForConditionalGeneration, qwen4_config(shape, **INDEX))
    weights = draw_under_own_names(shapes, seed, unspoken_ids(words))
    as_qwen3_5(weights)
    save_weights(as_published(weights), folder)


def save_config(config: Any, folder: Path) -> None:
    """With the published names where transformers has others since."""
    config.save_pretrained(folder)
    file = folder / "config.json"
    text = file.read_text().replace('"qwen4_exp_vision"', '"qwen4_exp"')
    file.write_text(text.replace('"indexed_attention"', '"full_attention"'))


def as_published(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tables of n-grams in parts; without the numbers that follow from the configuration, and
    without the index."""
    made = {}
    for name, weight in weights.items():
        if name.endswith("ngram_embedding.weight"):
            stem = name.removesuffix("weight")
            parts = weight.chunk(SHARDS)
            made |= {f"{stem}shard_{n}.weight": part.clone() for n, part in enumerate(parts)}
        elif ".ple_embedding." not in name and ".indexer." not in name:
            made[name] = weight
    return made
