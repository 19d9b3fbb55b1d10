"""Writes a demo Kimi-VL the way its authors lay out theirs."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from shapes import HEAD_SIZE, PATCH_SIZE, KimiShape
from tokenizer import VOCABULARY, tokenizer_of, unspoken_ids
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    GenerationConfig,
    PreTrainedTokenizerFast,
)
from weights import draw_under_own_names, save_weights, shapes_of

HERE = Path(__file__).parent
CODE = "processing_kimi_vl"
SPECIAL = [
    *("[BOS]", "[EOS]", "[PAD]", "<|im_end|>", "<|im_user|>", "<|im_assistant|>", "<|im_system|>"),
    *("<|im_middle|>", "<|media_start|>", "<|media_content|>", "<|media_end|>", "<|media_pad|>"),
]
BOS, _, PAD, IM_END, *_, MEDIA = range(len(SPECIAL))
HEAD = "language_model.lm_head.weight"
WIDTH, LAYERS, POSITIONS, MERGE = 128, 4, 64, 2
"""Of the tower; its learnt positions on a side; patches on a side of a token."""


def text_config(shape: KimiShape) -> DeepseekV3Config:
    """Latent attention of the published sizes, the only ones that vLLM runs on a CPU: 512 and 64
    columns a token, heads of 128. A dense layer, then layers of experts."""
    return DeepseekV3Config(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        moe_intermediate_size=WIDTH // 2,
        num_hidden_layers=shape.text_layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        kv_lora_rank=512,
        q_lora_rank=None,
        qk_rope_head_dim=64,
        qk_nope_head_dim=128,
        v_head_dim=128,
        first_k_dense_replace=1,
        n_routed_experts=8,
        n_shared_experts=2,
        num_experts_per_tok=3,
        n_group=1,
        topk_group=1,
        norm_topk_prob=True,
        routed_scaling_factor=2.446,
        max_position_embeddings=8192,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        bos_token_id=BOS,
        eos_token_id=IM_END,
        pad_token_id=PAD,
        dtype="float32",
    )


def text_settings(shape: KimiShape) -> dict[str, Any]:
    """The decoder's configuration as published, with what transformers does not know."""
    more = {"scoring_func": "sigmoid", "topk_method": "noaux_tc", "moe_layer_freq": 1}
    return {**text_config(shape).to_dict(), **more}


def config(shape: KimiShape) -> dict[str, Any]:
    return {
        "architectures": ["KimiVLForConditionalGeneration"],
        "model_type": "kimi_vl",
        "dtype": "float32",
        "tie_word_embeddings": False,
        "media_placeholder_token_id": MEDIA,
        "pad_token_id": PAD,
        "text_config": text_settings(shape),
        "vision_config": {
            "model_type": "moonvit",
            "hidden_size": WIDTH,
            "intermediate_size": 4 * WIDTH,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": WIDTH // HEAD_SIZE,
            "patch_size": PATCH_SIZE,
            "init_pos_emb_height": POSITIONS,
            "init_pos_emb_width": POSITIONS,
            "merge_kernel_size": [MERGE, MERGE],
        },
    }


def tower_shapes(projector: str, layers: tuple[str, str]) -> dict[str, tuple[int, ...]]:
    """Of the tower, and of the projector with these names."""
    token = MERGE**2 * WIDTH
    shapes: dict[str, tuple[int, ...]] = {
        "vision_tower.patch_embed.proj.weight": (WIDTH, 3, PATCH_SIZE, PATCH_SIZE),
        "vision_tower.patch_embed.proj.bias": (WIDTH,),
        "vision_tower.patch_embed.pos_emb.weight": (POSITIONS, POSITIONS, WIDTH),
        **_norm("vision_tower.encoder.final_layernorm"),
        **_norm(f"{projector}.pre_norm"),
        **_linear(f"{projector}.{layers[0]}", token, token),
        **_linear(f"{projector}.{layers[1]}", token, WIDTH),
    }
    for number in range(LAYERS):
        layer = f"vision_tower.encoder.blocks.{number}"
        shapes |= _norm(f"{layer}.norm0") | _norm(f"{layer}.norm1")
        shapes |= _linear(f"{layer}.wqkv", WIDTH, 3 * WIDTH) | _linear(f"{layer}.wo", WIDTH, WIDTH)
        shapes |= _linear(f"{layer}.mlp.fc0", WIDTH, 4 * WIDTH)
        shapes |= _linear(f"{layer}.mlp.fc1", 4 * WIDTH, WIDTH)
    return shapes


def _linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}


def text_shapes(shape: KimiShape) -> dict[str, torch.Size]:
    """By the published names: every expert has its matrices."""
    shapes = {}
    for name, size in shapes_of(DeepseekV3ForCausalLM, text_config(shape)).items():
        layer, found, matrix = name.partition("experts.")
        if not found or layer.endswith("shared_"):
            shapes[name] = size
            continue
        parts = {"gate_up_proj": ["gate_proj", "up_proj"]}.get(matrix, [matrix])
        for expert in range(size[0]):
            for part in parts:
                each = torch.Size([size[1] // len(parts), size[2]])
                shapes[f"{layer}experts.{expert}.{part}.weight"] = each
    return {f"language_model.{name}": size for name, size in shapes.items()}


def save_processor(shape: KimiShape, folder: Path) -> None:
    shutil.copy(HERE / "kimi" / f"{CODE}.py", folder)
    own = {
        "AutoImageProcessor": f"{CODE}.KimiVLImageProcessor",
        "AutoProcessor": f"{CODE}.KimiVLProcessor",
    }
    settings = {
        "auto_map": own,
        "image_processor_type": "KimiVLImageProcessor",
        "processor_class": "KimiVLProcessor",
        "patch_size": PATCH_SIZE,
        "merge_kernel_size": [MERGE, MERGE],
        "in_token_limit": shape.patches,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=2))


def write_model(
    seed: int,
    folder: Path,
    settings: dict[str, Any],
    words: PreTrainedTokenizerFast,
    shapes: Mapping[str, tuple[int, ...]],
) -> None:
    """Write all but the processor: a model with these settings and weights of these shapes."""
    (folder / "config.json").write_text(json.dumps(settings, indent=2))
    ends = {"bos_token_id": BOS, "eos_token_id": IM_END, "pad_token_id": PAD}
    GenerationConfig(**ends).save_pretrained(folder)
    words.save_pretrained(folder)
    sizes = {name: torch.Size(size) for name, size in shapes.items()}
    save_weights(draw_under_own_names(sizes, seed, unspoken_ids(words), HEAD), folder)


def tokenizer(
    other_names: Mapping[str, str] = MappingProxyType({}), template: str = "kimi_template.jinja"
) -> PreTrainedTokenizerFast:
    """The words, some of the special ones under names of another model."""
    text = (HERE / template).read_text()
    for name, other in other_names.items():
        text = text.replace(name, other)
    return tokenizer_of(
        [other_names.get(name, name) for name in SPECIAL],
        bos_token="[BOS]",
        eos_token=other_names.get("<|im_end|>", "<|im_end|>"),
        pad_token="[PAD]",
        chat_template=text,
    )


def write(shape: KimiShape, folder: Path) -> None:
    tower = tower_shapes("multi_modal_projector", ("linear_1", "linear_2"))
    write_model(shape.seed, folder, config(shape), tokenizer(), {**text_shapes(shape), **tower})
    save_processor(shape, folder)
