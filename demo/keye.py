"""Writes a demo Keye-VL, or Keye-VL 1.5, the way Kwai lays out theirs: SigLIP at a picture's own
resolution, a projector that merges four patches, and Qwen3's decoder."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from encoder_shapes import encoder_layers, linear, norm
from shapes import HEAD_SIZE, PATCH_SIZE, KeyeShape
from tokenizer import VOCABULARY, tokenizer_of, unspoken_ids
from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM
from weights import draw_under_own_names, save_weights, shapes_of

HERE = Path(__file__).parent
CONFIGURATION, PROCESSOR = "configuration_keye", "processing_keye"
SPECIAL = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"),
    *("<|image_pad|>", "<|video_pad|>", "<|frame|>", "<|fast_start|>", "<|fast_end|>"),
]
ENDOFTEXT, _, IM_END, VISION_START, VISION_END, IMAGE, VIDEO, *_ = range(len(SPECIAL))
WIDTH, LAYERS, MERGE, SIDE = 128, 4, 2, 16
"""Of the tower; patches on a side of a token, and of the picture that its positions are for."""

PACKED = 32768
"""Positions that vLLM's class has and this model does not use."""


def text_config(shape: KeyeShape) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=shape.text_layers,
        num_attention_heads=2 * WIDTH // HEAD_SIZE,
        num_key_value_heads=WIDTH // HEAD_SIZE,
        head_dim=HEAD_SIZE,
        max_position_embeddings=8192,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [8, 12, 12],
        },
        tie_word_embeddings=False,
        bos_token_id=ENDOFTEXT,
        eos_token_id=IM_END,
        pad_token_id=ENDOFTEXT,
        dtype="float32",
    )


def config(shape: KeyeShape) -> dict[str, Any]:
    return {
        **text_config(shape).to_dict(),
        "architectures": [f"{shape.name}ForConditionalGeneration"],
        "auto_map": {"AutoConfig": f"{CONFIGURATION}.{shape.name}Config"},
        "model_type": shape.name,
        "image_token_id": IMAGE,
        "video_token_id": VIDEO,
        "vision_start_token_id": VISION_START,
        "vision_end_token_id": VISION_END,
        "vision_config": {
            "model_type": "Keye",
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": WIDTH // HEAD_SIZE,
            "num_channels": 3,
            "image_size": SIDE * PATCH_SIZE,
            "patch_size": PATCH_SIZE,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 1,
            "hidden_act": "gelu_pytorch_tanh",
            "layer_norm_eps": 1e-6,
            "attention_dropout": 0.0,
        },
    }


def tower_shapes(shape: KeyeShape) -> dict[str, tuple[int, ...]]:
    """Of the tower and of the projector."""
    tower, token = "visual.vision_model", MERGE**2 * WIDTH
    shapes: dict[str, tuple[int, ...]] = {
        f"{tower}.embeddings.patch_embedding.weight": (WIDTH, 3, PATCH_SIZE, PATCH_SIZE),
        f"{tower}.embeddings.patch_embedding.bias": (WIDTH,),
        f"{tower}.embeddings.position_embedding.weight": (SIDE**2, WIDTH),
        f"{tower}.embeddings.packing_position_embedding.weight": (PACKED, WIDTH),
        **norm(f"{tower}.post_layernorm", WIDTH),
        **norm("mlp_AR.pre_norm", WIDTH if shape.name == "Keye" else token),
        **linear("mlp_AR.linear_1", token, token),
        **linear("mlp_AR.linear_2", token, WIDTH),
    }
    return shapes | encoder_layers(f"{tower}.encoder.layers", LAYERS, WIDTH)


def save_processor(shape: KeyeShape, folder: Path) -> None:
    edge = PATCH_SIZE * MERGE
    common = {
        "auto_map": {
            "AutoImageProcessor": f"{PROCESSOR}.KeyeImageProcessor",
            "AutoProcessor": f"{PROCESSOR}.{shape.name}Processor",
        },
        "processor_class": f"{shape.name}Processor",
    }
    images = {
        "image_processor_type": "KeyeImageProcessor",
        "patch_size": PATCH_SIZE,
        "merge_size": MERGE,
        "min_pixels": 4 * edge**2,
        "max_pixels": shape.tokens * edge**2,
    }
    for name, settings in (("preprocessor", images), ("processor", {})):
        text = json.dumps({**common, **settings}, indent=2)
        (folder / f"{name}_config.json").write_text(text)


def write(shape: KeyeShape, folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(config(shape), indent=2))
    for code in (CONFIGURATION, PROCESSOR):
        shutil.copy(HERE / "remote" / f"{code}.py", folder)
    ends = {"bos_token_id": ENDOFTEXT, "eos_token_id": IM_END, "pad_token_id": ENDOFTEXT}
    GenerationConfig(**ends).save_pretrained(folder)
    words = tokenizer_of(
        SPECIAL,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=(HERE / "qwen_template.jinja").read_text(),
    )
    words.save_pretrained(folder)
    save_processor(shape, folder)
    shapes = shapes_of(Qwen3ForCausalLM, text_config(shape))
    shapes |= {name: torch.Size(size) for name, size in tower_shapes(shape).items()}
    save_weights(draw_under_own_names(shapes, shape.seed, unspoken_ids(words)), folder)
