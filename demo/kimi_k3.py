"""Writes a demo Kimi-K3, without the weights of its decoder, which vLLM does not run on a CPU: the
tower, with vLLM's own processor of pictures, for an engine that only encodes."""

import json
from pathlib import Path
from typing import Any

from kimi import (
    HEAD,
    LAYERS,
    MEDIA,
    MERGE,
    PAD,
    POSITIONS,
    WIDTH,
    tokenizer,
    tower_shapes,
    write_model,
)
from kimi_k25 import processor
from shapes import HEAD_SIZE, PATCH_SIZE, KimiK3Shape
from tokenizer import VOCABULARY

NAMES = {
    "<|im_end|>": "<|end_of_msg|>",
    "<|im_user|>": "<|open|>",
    "<|im_assistant|>": "<|close|>",
    "<|im_system|>": "<|sep|>",
    "<|media_start|>": "<|media_begin|>",
}
"""Of special tokens, by those of Kimi-VL. An image's placeholder is none, as published."""

HEADS = 3
"""Of the tower, wider than its rows, as published."""


def config() -> dict[str, Any]:
    return {
        "architectures": ["KimiK3ForConditionalGeneration"],
        "model_type": "kimi_k3",
        "dtype": "float32",
        "tie_word_embeddings": False,
        "image_placeholder": "<|kimi_image_placeholder|>",
        "media_placeholder_token_id": MEDIA,
        "pad_token_id": PAD,
        "text_config": text_config(),
        "vision_config": {
            "vt_hidden_size": WIDTH,
            "vt_intermediate_size": 4 * WIDTH,
            "vt_num_hidden_layers": LAYERS,
            "vt_num_attention_heads": HEADS,
            "qkv_hidden_size": HEADS * HEAD_SIZE,
            "patch_size": PATCH_SIZE,
            "init_pos_emb_height": POSITIONS,
            "init_pos_emb_width": POSITIONS,
            "merge_kernel_size": [MERGE, MERGE],
        },
    }


def text_config() -> dict[str, Any]:
    """What vLLM reads of a decoder before it leaves it out."""
    return {
        "model_type": "kimi_linear",
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 8192,
        "linear_attn_config": {
            "kda_layers": [1, 2],
            "full_attn_layers": [],
            "head_dim": HEAD_SIZE,
            "num_heads": 2,
            "short_conv_kernel_size": 4,
        },
    }


def shapes() -> dict[str, tuple[int, ...]]:
    """Kimi-K2.5's without biases, with wider attention and another norm in the projector."""
    found = tower_shapes("mm_projector", ("proj.0", "proj.2"))
    found = {name: size for name, size in found.items() if name.endswith("weight")}
    del found["mm_projector.pre_norm.weight"]
    for number in range(LAYERS):
        layer = f"vision_tower.encoder.blocks.{number}"
        found[f"{layer}.wqkv.weight"] = (3 * HEADS * HEAD_SIZE, WIDTH)
        found[f"{layer}.wo.weight"] = (WIDTH, HEADS * HEAD_SIZE)
    return {**found, "mm_projector.post_norm.weight": (WIDTH,), HEAD: (VOCABULARY, WIDTH)}


def write(shape: KimiK3Shape, folder: Path) -> None:
    words = tokenizer(NAMES, "kimi_k3_template.jinja")
    write_model(shape.seed, folder, config(), words, shapes())
    settings = processor(shape.patches, frames=4)
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=2))
