"""Writes a demo Step3-VL the way StepFun lays out theirs: a perception encoder that halves its grid
of patches twice behind its layers, for a picture of 728 pixels and windows of 504, and Qwen3."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from minicpm import ENDOFTEXT, IM_END
from shapes import PATCH_SIZE
from tile_shapes import StepShape
from tokenizer import VOCABULARY, tokenizer_of, unspoken_ids
from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM
from weights import draw_under_own_names, save_weights, shapes_of

HERE = Path(__file__).parent
CONFIGURATION = "configuration_step_vl"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<im_patch>", "<im_start>", "<im_end>"]
SPECIAL += ["<patch_start>", "<patch_end>", "<patch_newline>"]
IMAGE = SPECIAL.index("<im_patch>")
SIDE = 728 // PATCH_SIZE
"""Patches on a side of the whole picture; its size and that of windows are vLLM's, not ours."""
HEADS, MLP_RATIO = 2, 2
TEXT_WIDTH, TEXT_HEAD_SIZE = 128, 64


def text_config() -> Qwen3Config:
    return Qwen3Config(
        architectures=["Qwen3ForCausalLM"],
        vocab_size=VOCABULARY,
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=TEXT_HEAD_SIZE,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=False,
        bos_token_id=ENDOFTEXT,
        eos_token_id=IM_END,
        pad_token_id=ENDOFTEXT,
        dtype="float32",
    )


def config(shape: StepShape) -> dict[str, Any]:
    return {
        "architectures": ["StepVLForConditionalGeneration"],
        "auto_map": {"AutoConfig": f"{CONFIGURATION}.StepRoboticsConfig"},
        "model_type": "step_robotics",
        "dtype": "float32",
        "image_token_id": IMAGE,
        "understand_projector_stride": 2,
        "projector_bias": False,
        "text_config": text_config().to_dict(),
        "vision_config": tower_config(shape),
    }


def tower_config(shape: StepShape) -> dict[str, Any]:
    return {
        "model_type": "perception_encoder",
        "width": shape.width,
        "layers": shape.layers,
        "heads": HEADS,
        "num_channels": 3,
        "patch_size": PATCH_SIZE,
        "image_size": SIDE * PATCH_SIZE,
        "mlp_ratio": MLP_RATIO,
        "layer_norm_eps": 1e-5,
        "hidden_act": "quick_gelu",
        "output_dim": None,
        "use_cls_token": False,
        "use_ln_pre": True,
        "use_ln_post": False,
        "use_abs_posemb": True,
        "use_rope2d": True,
        "ls_init_value": 0.1,
    }


def tower_shapes(shape: StepShape, prefix: str = "") -> dict[str, tuple[int, ...]]:
    """Of the tower, the layers that halve its grid, and the projector; `prefix` begins names."""
    tower, width = f"{prefix}vision_model", shape.width
    shapes: dict[str, tuple[int, ...]] = {
        f"{tower}.conv1.weight": (width, 3, PATCH_SIZE, PATCH_SIZE),
        f"{tower}.positional_embedding": (SIDE**2, width),
        f"{prefix}vit_large_projector.weight": (TEXT_WIDTH, 4 * width),
        **_with_bias(f"{tower}.ln_pre", width),
        **_with_bias(f"{tower}.vit_downsampler1", 2 * width, width, 3, 3),
        **_with_bias(f"{tower}.vit_downsampler2", 4 * width, 2 * width, 3, 3),
    }
    for number in range(shape.layers):
        layer = f"{tower}.transformer.resblocks.{number}"
        shapes |= {
            f"{layer}.attn.in_proj_weight": (3 * width, width),
            f"{layer}.attn.in_proj_bias": (3 * width,),
            **_with_bias(f"{layer}.attn.out_proj", width, width),
            **_with_bias(f"{layer}.mlp.c_fc", MLP_RATIO * width, width),
            **_with_bias(f"{layer}.mlp.c_proj", width, MLP_RATIO * width),
        }
        for half in (1, 2):
            shapes |= _with_bias(f"{layer}.ln_{half}", width)
            shapes[f"{layer}.ls_{half}.gamma"] = (width,)
    return shapes


def _with_bias(name: str, *size: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": size, f"{name}.bias": size[:1]}


def write(shape: StepShape, folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(config(shape), indent=2))
    shutil.copy(HERE / "remote" / f"{CONFIGURATION}.py", folder)
    ends = {"bos_token_id": ENDOFTEXT, "eos_token_id": IM_END, "pad_token_id": ENDOFTEXT}
    GenerationConfig(**ends).save_pretrained(folder)
    words = tokenizer_of(
        SPECIAL,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=(HERE / "step_template.jinja").read_text(),
    )
    words.save_pretrained(folder)
    shapes = shapes_of(Qwen3ForCausalLM, text_config())
    shapes |= {name: torch.Size(size) for name, size in tower_shapes(shape).items()}
    save_weights(draw_under_own_names(shapes, shape.seed, unspoken_ids(words)), folder)
