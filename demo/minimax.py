"""Writes a demo MiniMax-M3: its tower, and a decoder that vLLM builds on a CPU but does not run."""

import json
from pathlib import Path
from typing import Any

import torch
from shapes import HEAD_SIZE, PATCH_SIZE, MiniMaxShape
from tokenizer import VOCABULARY, tokenizer_of, unspoken_ids
from transformers import GenerationConfig
from weights import draw_under_own_names, save_weights

HERE = Path(__file__).parent
SPECIAL = [
    *("]!p~[", "]~!b[", "]~b]", "[e~["),
    *("]<]image[>[", "]<]video[>[", "]<]start of image[>[", "]<]end of image[>["),
]
PAD, BOS, _, END, *_ = range(len(SPECIAL))
WIDTH, LAYERS, MERGE, FRAMES = 128, 4, 2, 2
"""Of the tower; patches on a side of a token, and frames in a patch."""

TEXT_LAYERS = 2
HEADS = WIDTH // HEAD_SIZE


def config() -> dict[str, Any]:
    return {
        "architectures": ["MiniMaxM3SparseForConditionalGeneration"],
        "model_type": "minimax_m3_vl",
        "dtype": "float32",
        "projector_hidden_size": WIDTH,
        "text_config": {
            "model_type": "minimax_m3_text",
            "vocab_size": VOCABULARY,
            "hidden_size": WIDTH,
            "dense_intermediate_size": 2 * WIDTH,
            "num_hidden_layers": TEXT_LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": HEADS,
            "head_dim": HEAD_SIZE,
            "rotary_dim": HEAD_SIZE // 2,
            "max_position_embeddings": 8192,
            # Without experts and sparse attention, as the first layers of the published one.
            "moe_layer_freq": [0] * TEXT_LAYERS,
            "sparse_attention_config": {
                "sparse_attention_freq": [0] * TEXT_LAYERS,
                "sparse_num_index_heads": HEADS,
                "sparse_index_dim": HEAD_SIZE,
                "sparse_topk_blocks": 16,
                "sparse_block_size": 128,
            },
        },
        "vision_config": {
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_channels": 3,
            "patch_size": PATCH_SIZE,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "img_token_compression_config": {
                "spatial_merge_size": MERGE,
                "temporal_patch_size": FRAMES,
            },
        },
    }


def tower_shapes() -> dict[str, tuple[int, ...]]:
    model = "vision_tower.vision_model"
    shapes: dict[str, tuple[int, ...]] = {
        f"{model}.embeddings.patch_embedding.weight": (WIDTH, 3, FRAMES, PATCH_SIZE, PATCH_SIZE),
        **_pair(f"{model}.pre_layrnorm", WIDTH),
        **_linear("multi_modal_projector.linear_1", WIDTH, WIDTH),
        **_linear("multi_modal_projector.linear_2", WIDTH, WIDTH),
        **_linear("patch_merge_mlp.linear_1", MERGE**2 * WIDTH, WIDTH),
        **_linear("patch_merge_mlp.linear_2", WIDTH, WIDTH),
    }
    for number in range(LAYERS):
        layer = f"{model}.encoder.layers.{number}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= _linear(f"{layer}.self_attn.{part}", WIDTH, WIDTH)
        shapes |= _pair(f"{layer}.layer_norm1", WIDTH) | _pair(f"{layer}.layer_norm2", WIDTH)
        shapes |= _linear(f"{layer}.mlp.fc1", WIDTH, 2 * WIDTH)
        shapes |= _linear(f"{layer}.mlp.fc2", 2 * WIDTH, WIDTH)
    return shapes


def text_shapes() -> dict[str, tuple[int, ...]]:
    model = "language_model.model"
    shapes: dict[str, tuple[int, ...]] = {
        f"{model}.embed_tokens.weight": (VOCABULARY, WIDTH),
        f"{model}.norm.weight": (WIDTH,),
        "language_model.lm_head.weight": (VOCABULARY, WIDTH),
    }
    for number in range(TEXT_LAYERS):
        layer = f"{model}.layers.{number}"
        for part in ("q_proj", "k_proj", "v_proj", "o_proj"):
            shapes[f"{layer}.self_attn.{part}.weight"] = (WIDTH, WIDTH)
        for part in ("q_norm", "k_norm"):
            shapes[f"{layer}.self_attn.{part}.weight"] = (HEAD_SIZE,)
        for part in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{layer}.{part}.weight"] = (WIDTH,)
        for part in ("gate_proj", "up_proj"):
            shapes[f"{layer}.mlp.{part}.weight"] = (2 * WIDTH, WIDTH)
        shapes[f"{layer}.mlp.down_proj.weight"] = (WIDTH, 2 * WIDTH)
    return shapes


def _linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _pair(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def write(shape: MiniMaxShape, folder: Path) -> None:
    words = tokenizer_of(
        SPECIAL,
        bos_token="]~!b[",
        eos_token="[e~[",
        pad_token="]!p~[",
        chat_template=(HERE / "minimax_template.jinja").read_text(),
    )
    words.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config(), indent=2))
    GenerationConfig(bos_token_id=BOS, eos_token_id=END, pad_token_id=PAD).save_pretrained(folder)
    settings = {"max_pixels": shape.tokens * (MERGE * PATCH_SIZE) ** 2}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=2))
    sizes = {name: torch.Size(size) for name, size in (tower_shapes() | text_shapes()).items()}
    head = "language_model.lm_head.weight"
    save_weights(draw_under_own_names(sizes, shape.seed, unspoken_ids(words), head), folder)
