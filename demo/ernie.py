"""Writes a demo ERNIE-4.5-VL the way Baidu lays out theirs: a tower as Qwen2-VL's, a resampler that
joins four patches and two frames, and a decoder with experts for text and others for vision."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from shapes import HEAD_SIZE, PATCH_SIZE, ErnieShape
from tokenizer import VOCABULARY, tokenizer_of, unspoken_ids
from transformers import GenerationConfig
from weights import draw_under_own_names, save_weights

HERE = Path(__file__).parent
CONFIGURATION, PROCESSOR = "configuration_ernie", "processing_ernie"
SPECIAL = [
    *("<unk>", "<s>", "</s>", "<|begin_of_sentence|>", "<|end_of_sentence|>"),
    *("<|IMAGE_START|>", "<|IMAGE_END|>", "<|VIDEO_START|>", "<|VIDEO_END|>"),
    *("<|IMAGE_PLACEHOLDER|>", "<|image@placeholder|>", "<|video@placeholder|>"),
]
END = SPECIAL.index("</s>")
WIDTH, LAYERS, MERGE, FRAMES = 128, 4, 2, 2
"""Of tower and decoder; the tower's layers; patches on a side of a token, and its frames."""

QUERIES, KEYS, EXPERTS = 4, 2, 8
"""Heads; experts of text, and as many of vision."""


def config(shape: ErnieShape) -> dict[str, Any]:
    section = (HEAD_SIZE // 2 - shape.time) // 2
    named = ("image_start", "image_end", "video_start", "video_end")
    marks = {f"{name}_token_id": SPECIAL.index(f"<|{name.upper()}|>") for name in named}
    last = shape.text_layers - 1
    return {
        "architectures": ["Ernie4_5_VLMoeForConditionalGeneration"],
        "auto_map": {"AutoConfig": f"{CONFIGURATION}.ErnieVLConfig"},
        "model_type": "ernie4_5_moe_vl",
        "dtype": "float32",
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "hidden_act": "silu",
        "num_hidden_layers": shape.text_layers,
        "num_attention_heads": QUERIES,
        "num_key_value_heads": KEYS,
        "head_dim": HEAD_SIZE,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 5e5,
        "rope_3d": True,
        "freq_allocation": shape.time,
        "rope_scaling": {"type": "default", "mrope_section": [section, section, shape.time]},
        "use_bias": False,
        "moe_num_experts": [EXPERTS, EXPERTS],
        "moe_intermediate_size": [WIDTH, WIDTH // 2],
        "moe_k": 3,
        "moe_num_shared_experts": 2,
        "moe_layer_start_index": [1, 1],
        "moe_layer_end_index": [last, last],
        "moe_layer_interval": 1,
        "tie_word_embeddings": False,
        "bos_token_id": SPECIAL.index("<s>"),
        "eos_token_id": END,
        "pad_token_id": 0,
        "im_patch_id": SPECIAL.index("<|IMAGE_PLACEHOLDER|>"),
        **marks,
        "pixel_hidden_size": WIDTH,
        "spatial_conv_size": MERGE,
        "temporal_conv_size": FRAMES,
        "use_temporal_conv": True,
        "vision_config": {
            "model_type": "DFNRope_vision_transformer",
            "depth": LAYERS,
            "embed_dim": WIDTH,
            "hidden_size": WIDTH,
            "hidden_act": "quick_gelu",
            "in_channels": 3,
            "mlp_ratio": 2,
            "num_heads": WIDTH // HEAD_SIZE,
            "patch_size": PATCH_SIZE,
            "spatial_merge_size": MERGE,
        },
    }


def tower_shapes() -> dict[str, tuple[int, ...]]:
    """Of the tower and of the resampler."""
    shapes: dict[str, tuple[int, ...]] = {
        "vision_model.patch_embed.proj.weight": (WIDTH, 3 * PATCH_SIZE**2),
        **_norm("vision_model.ln", WIDTH),
    }
    for number in range(LAYERS):
        block = f"vision_model.blocks.{number}"
        shapes |= _norm(f"{block}.norm1", WIDTH) | _norm(f"{block}.norm2", WIDTH)
        shapes |= _linear(f"{block}.attn.qkv", WIDTH, 3 * WIDTH)
        shapes |= _linear(f"{block}.attn.proj", WIDTH, WIDTH)
        shapes |= _linear(f"{block}.mlp.fc1", WIDTH, 2 * WIDTH)
        shapes |= _linear(f"{block}.mlp.fc2", 2 * WIDTH, WIDTH)
    resampler, token = "model.resampler_model", MERGE**2 * WIDTH
    for joined, frames in (("spatial", 1), ("temporal", FRAMES)):
        shapes |= _linear(f"{resampler}.{joined}_linear.0", frames * token, token)
        shapes |= _linear(f"{resampler}.{joined}_linear.2", token, token)
        shapes |= _norm(f"{resampler}.{joined}_linear.3", token)
    shapes |= _linear(f"{resampler}.mlp", token, WIDTH)
    return {**shapes, f"{resampler}.after_norm.weight": (WIDTH,)}


def text_shapes(shape: ErnieShape) -> dict[str, tuple[int, ...]]:
    """A dense layer, then layers of experts, those of text numbered first."""
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY, WIDTH),
        "model.norm.weight": (WIDTH,),
        "lm_head.weight": (VOCABULARY, WIDTH),
    }
    for number in range(shape.text_layers):
        layer = f"model.layers.{number}"
        for name, heads in (("q_proj", QUERIES), ("k_proj", KEYS), ("v_proj", KEYS)):
            shapes[f"{layer}.self_attn.{name}.weight"] = (heads * HEAD_SIZE, WIDTH)
        shapes[f"{layer}.self_attn.o_proj.weight"] = (WIDTH, QUERIES * HEAD_SIZE)
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{layer}.{name}.weight"] = (WIDTH,)
        if not number:
            shapes |= _gated(f"{layer}.mlp", 2 * WIDTH)
            continue
        shapes |= _gated(f"{layer}.mlp.shared_experts", 2 * WIDTH)
        for expert in range(2 * EXPERTS):
            inner = WIDTH if expert < EXPERTS else WIDTH // 2
            shapes |= _gated(f"{layer}.mlp.experts.{expert}", inner)
        shapes[f"{layer}.mlp.gate.weight"] = (WIDTH, EXPERTS)
        shapes[f"{layer}.mlp.gate.weight_1"] = (WIDTH, EXPERTS)
    return shapes


def _gated(name: str, inner: int) -> dict[str, tuple[int, ...]]:
    into = {f"{name}.{each}_proj.weight": (inner, WIDTH) for each in ("gate", "up")}
    return {**into, f"{name}.down_proj.weight": (WIDTH, inner)}


def _linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def weights_of(shape: ErnieShape, silent: list[int]) -> dict[str, torch.Tensor]:
    shapes = {**tower_shapes(), **text_shapes(shape)}
    sizes = {name: torch.Size(size) for name, size in shapes.items()}
    weights = draw_under_own_names(sizes, shape.seed, silent)
    generator = torch.Generator().manual_seed(shape.seed)
    for number in range(1, shape.text_layers):
        name = f"model.layers.{number}.mlp.moe_statics.e_score_correction_bias"
        weights[name] = 0.1 * torch.randn((2, EXPERTS), generator=generator)
    return weights


def save_processor(shape: ErnieShape, folder: Path) -> None:
    edge = PATCH_SIZE * MERGE
    common = {
        "auto_map": {
            "AutoImageProcessor": f"{PROCESSOR}.ErnieImageProcessor",
            "AutoProcessor": f"{PROCESSOR}.ErnieProcessor",
        },
        "processor_class": "ErnieProcessor",
    }
    images = {
        "image_processor_type": "ErnieImageProcessor",
        "patch_size": PATCH_SIZE,
        "merge_size": MERGE,
        "min_pixels": 4 * edge**2,
        "max_pixels": shape.tokens * edge**2,
    }
    bounds = {
        "image_min_pixels": 4 * edge**2,
        "image_max_pixels": shape.tokens * edge**2,
        "video_min_pixels": 4 * edge**2,
        "video_max_pixels": shape.tokens // 4 * edge**2,
    }
    for name, settings in (("preprocessor", images), ("processor", bounds)):
        text = json.dumps({**common, **settings}, indent=2)
        (folder / f"{name}_config.json").write_text(text)


def write(shape: ErnieShape, folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(config(shape), indent=2))
    for code in (CONFIGURATION, PROCESSOR):
        shutil.copy(HERE / "remote" / f"{code}.py", folder)
    GenerationConfig(eos_token_id=END, pad_token_id=0).save_pretrained(folder)
    words = tokenizer_of(
        SPECIAL,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<unk>",
        chat_template=(HERE / "ernie_template.jinja").read_text(),
    )
    words.save_pretrained(folder)
    save_processor(shape, folder)
    save_weights(weights_of(shape, unspoken_ids(words)), folder)
