"""Writes a demo Nemotron Nano VL the way NVIDIA lays out theirs: RADIO's tower, NemotronH's decoder
of Mamba, attention and dense layers, and in the form that makes pictures of any shape a Parakeet
for audio too.

The tower is the smallest that vLLM knows: it takes a tower's width from its name alone.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from parakeet import sound_config, sound_weights
from shapes import HEAD_SIZE
from tile_shapes import NemotronShape
from tokenizer import VOCABULARY, tokenizer_of, unspoken_ids
from transformers import (
    GenerationConfig,
    NemotronHConfig,
    NemotronHForCausalLM,
)
from weights import draw_under_own_names, save_weights, shapes_of

HERE = Path(__file__).parent
CODE = "configuration_nemotron"
SPECIAL = [
    *("<unk>", "<s>", "</s>", "<SPECIAL_11>", "<SPECIAL_12>", "<image>", "<img>", "</img>"),
    *("<video>", "<so_start>", "<so_embedding>", "<so_end>"),
]
BOS, END = SPECIAL.index("<s>"), SPECIAL.index("<SPECIAL_12>")
HEAD = "language_model.lm_head.weight"
WIDTH, TOWER, LAYERS, PATCH, TOKEN = 128, 384, 12, 16, 4
"""Of the decoder and of the tower; its layers; pixels of a patch; patches of a token."""

TEACHERS = ("clip", "dino_v2", "sam")
REGISTERS = 8 - len(TEACHERS)
"""Of the tower, which has a token for each of its teachers: eight in all before the patches."""


def text_config() -> NemotronHConfig:
    return NemotronHConfig(
        architectures=["NemotronHForCausalLM"],
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        hybrid_override_pattern="M*-M",
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=HEAD_SIZE,
        intermediate_size=2 * WIDTH,
        ssm_state_size=32,
        mamba_num_heads=4,
        mamba_head_dim=HEAD_SIZE,
        n_groups=2,
        chunk_size=32,
        max_position_embeddings=8192,
        bos_token_id=BOS,
        eos_token_id=END,
        dtype="bfloat16",
    )


def config(shape: NemotronShape) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "model": "vit_small_patch16_224",
        "cpe_max_size": 2 * shape.image_size,
        "register_multiple": 8,
        "cls_token_per_teacher": True,
        "teachers": [{"name": name, "use_summary": name != "sam"} for name in TEACHERS],
    }
    if shape.is_omni:
        arguments |= {"min_num_patches": shape.patches[0], "max_num_patches": shape.patches[1]}
    frames = {"video_temporal_patch_size": 2, "separate_video_embedder": True}
    vision = {
        "args": arguments,
        "patch_size": PATCH,
        "preferred_resolution": [shape.image_size] * 2,
    }
    kind = "NemotronH_Nano_Omni_Reasoning_V3" if shape.is_omni else "NemotronH_Nano_VL_V2"
    return {
        "architectures": [kind],
        "auto_map": {"AutoConfig": f"{CODE}.NemotronVLConfig"},
        "model_type": "NemotronH_Nano_VL_V2",
        "dtype": "bfloat16",
        "force_image_size": shape.image_size,
        "patch_size": PATCH,
        "downsample_ratio": 0.5,
        "ps_version": "v2",
        "template": "nemotron",
        "image_tag_type": "internvl",
        "use_thumbnail": True,
        "vit_hidden_size": TOWER,
        "projector_hidden_size": 2 * WIDTH,
        "norm_mean": [0.48145466, 0.4578275, 0.40821073],
        "norm_std": [0.26862954, 0.26130258, 0.27577711],
        "llm_config": text_config().to_dict(),
        "vision_config": {**vision, **(frames if shape.is_omni else {})},
        "sound_config": sound_config() if shape.is_omni else None,
    }


def tower_shapes(shape: NemotronShape) -> dict[str, tuple[int, ...]]:
    """Of the tower and of the projector."""
    most = 2 * shape.image_size // PATCH
    model = "vision_model.radio_model.model"
    shapes: dict[str, tuple[int, ...]] = {
        f"{model}.patch_generator.embedder.weight": (TOWER, 3 * PATCH**2),
        f"{model}.patch_generator.pos_embed": (1, most**2, TOWER),
        f"{model}.patch_generator.cls_token.token": (len(TEACHERS) + REGISTERS, TOWER),
        "mlp1.0.weight": (TOKEN * TOWER,),
        "mlp1.1.weight": (2 * WIDTH, TOKEN * TOWER),
        "mlp1.3.weight": (WIDTH, 2 * WIDTH),
    }
    if shape.is_omni:
        shapes[f"{model}.patch_generator.video_embedder.weight"] = (TOWER, 2 * 3 * PATCH**2)
    for number in range(LAYERS):
        layer = f"{model}.blocks.{number}"
        shapes |= _linear(f"{layer}.attn.qkv", TOWER, 3 * TOWER)
        shapes |= _linear(f"{layer}.attn.proj", TOWER, TOWER)
        shapes |= _linear(f"{layer}.mlp.fc1", TOWER, 4 * TOWER)
        shapes |= _linear(f"{layer}.mlp.fc2", 4 * TOWER, TOWER)
        vectors = ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias")
        shapes |= {f"{layer}.{name}": (TOWER,) for name in vectors}
    return shapes


def _linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def text_shapes() -> dict[str, torch.Size]:
    """By the published names."""
    found = shapes_of(NemotronHForCausalLM, text_config())
    names = {name: name.replace("model.", "backbone.", 1) for name in found}
    return {f"language_model.{names[name]}": size for name, size in found.items()}


def weights_of(shape: NemotronShape, silent: list[int]) -> dict[str, torch.Tensor]:
    shapes = {name: torch.Size(size) for name, size in tower_shapes(shape).items()}
    weights = draw_under_own_names({**shapes, **text_shapes()}, shape.seed, silent, HEAD)
    for name, weight in weights.items():
        if name.endswith(".mixer.D"):
            weight.fill_(1.0)
        elif name.endswith(".mixer.dt_bias"):
            weight.fill_(-4.0)  # a token is remembered for some fifty others
    return {**weights, **(sound_weights(WIDTH, shape.seed) if shape.is_omni else {})}


def write(shape: NemotronShape, folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(config(shape), indent=2))
    shutil.copy(HERE / "remote" / f"{CODE}.py", folder)
    GenerationConfig(bos_token_id=BOS, eos_token_id=END).save_pretrained(folder)
    words = tokenizer_of(
        SPECIAL,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="<SPECIAL_12>",
        chat_template=(HERE / "nemotron_template.jinja").read_text(),
    )
    words.save_pretrained(folder)
    weights = weights_of(shape, unspoken_ids(words))
    save_weights({name: weight.bfloat16() for name, weight in weights.items()}, folder)
