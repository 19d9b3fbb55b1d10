"""Writes a demo InternVL the way its authors lay out theirs, or in its transformers form."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from shapes import HEAD_SIZE, PATCH_SIZE, InternShape
from tokenizer import VOCABULARY, tokenizer_of, unspoken_ids
from transformers import (
    GenerationConfig,
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from weights import draw_under_own_names, save_weights, shapes_of

HERE = Path(__file__).parent
SPECIAL = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *("<img>", "</img>", "<IMG_CONTEXT>", "<|video_pad|>"),
]
ROLES = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<|video_pad|>",
}
ENDOFTEXT, _, IM_END, _, _, CONTEXT, _ = range(len(SPECIAL))
WIDTH, LAYERS, TOKEN = 128, 4, 4
"""Of the tower; patches of a token."""
TEXTS: dict[str, tuple[Any, Any]] = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}


def text_config(shape: InternShape) -> Any:
    kind, model = TEXTS[shape.text]
    more = {"head_dim": HEAD_SIZE} if shape.text == "qwen3" else {}
    return kind(
        architectures=[model.__name__],
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=shape.text_layers,
        num_attention_heads=WIDTH // HEAD_SIZE,
        num_key_value_heads=WIDTH // HEAD_SIZE,
        max_position_embeddings=8192,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
        bos_token_id=ENDOFTEXT,
        eos_token_id=IM_END,
        dtype="float32",
        **more,
    )


def config(shape: InternShape) -> dict[str, Any]:
    code = "configuration_internvl_chat"
    return {
        "architectures": ["InternVLChatModel"],
        "auto_map": {"AutoConfig": f"{code}.InternVLChatConfig"},
        "model_type": "internvl_chat",
        "dtype": "float32",
        "downsample_ratio": 0.5,
        "dynamic_image_size": True,
        "force_image_size": shape.image_size,
        "min_dynamic_patch": 1,
        "max_dynamic_patch": shape.tiles,
        "ps_version": "v2",
        "select_layer": -1,
        "use_thumbnail": True,
        "tie_word_embeddings": False,
        "llm_config": text_config(shape).to_dict(),
        "vision_config": {
            "architectures": ["InternVisionModel"],
            "model_type": "intern_vit_6b",
            "hidden_size": WIDTH,
            "intermediate_size": 4 * WIDTH,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": WIDTH // HEAD_SIZE,
            "image_size": shape.image_size,
            "patch_size": PATCH_SIZE,
            "num_channels": 3,
            "hidden_act": "gelu",
            "norm_type": "layer_norm",
            "layer_norm_eps": 1e-6,
            "initializer_factor": 1.0,
            "qkv_bias": True,
            "qk_normalization": False,
            "use_flash_attn": False,
        },
    }


def tower_shapes(shape: InternShape) -> dict[str, tuple[int, ...]]:
    patches = (shape.image_size // PATCH_SIZE) ** 2
    shapes: dict[str, tuple[int, ...]] = {
        "vision_model.embeddings.class_embedding": (1, 1, WIDTH),
        "vision_model.embeddings.patch_embedding.weight": (WIDTH, 3, PATCH_SIZE, PATCH_SIZE),
        "vision_model.embeddings.patch_embedding.bias": (WIDTH,),
        "vision_model.embeddings.position_embedding": (1, 1 + patches, WIDTH),
        **_linear("mlp1.1", TOKEN * WIDTH, WIDTH),
        **_linear("mlp1.3", WIDTH, WIDTH),
        "mlp1.0.weight": (TOKEN * WIDTH,),
        "mlp1.0.bias": (TOKEN * WIDTH,),
    }
    for number in range(LAYERS):
        layer = f"vision_model.encoder.layers.{number}"
        shapes |= _linear(f"{layer}.attn.qkv", WIDTH, 3 * WIDTH)
        shapes |= _linear(f"{layer}.attn.proj", WIDTH, WIDTH)
        shapes |= _linear(f"{layer}.mlp.fc1", WIDTH, 4 * WIDTH)
        shapes |= _linear(f"{layer}.mlp.fc2", 4 * WIDTH, WIDTH)
        vectors = ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "ls1", "ls2")
        shapes |= {f"{layer}.{name}": (WIDTH,) for name in vectors}
    return shapes


def _linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def tokenizer(shape: InternShape) -> PreTrainedTokenizerFast:
    template = (HERE / "internvl_template.jinja").read_text()
    if not shape.chat:
        template = template.replace("<image>", "<IMG_CONTEXT>").replace("<video>", "<|video_pad|>")
    return tokenizer_of(
        SPECIAL,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=template,
        **({} if shape.chat else {"extra_special_tokens": ROLES}),
    )


def own_form(shape: InternShape) -> InternVLConfig:
    """The transformers configuration."""
    return InternVLConfig(
        architectures=["InternVLForConditionalGeneration"],
        text_config=text_config(shape).to_dict(),
        vision_config={
            "hidden_size": WIDTH,
            "intermediate_size": 4 * WIDTH,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": WIDTH // HEAD_SIZE,
            "image_size": shape.image_size,
            "patch_size": PATCH_SIZE,
            "attention_bias": True,
            "use_qk_norm": False,
        },
        image_token_id=CONTEXT,
        image_seq_length=tile_tokens(shape),
        downsample_ratio=0.5,
        tie_word_embeddings=False,
        dtype="float32",
    )


def tile_tokens(shape: InternShape) -> int:
    return (shape.image_size // PATCH_SIZE) ** 2 // TOKEN


def save_own_form(shape: InternShape, words: PreTrainedTokenizerFast, folder: Path) -> Any:
    """Everything but the weights; returns their shapes by name."""
    config = own_form(shape)
    config.save_pretrained(folder)
    size = {"height": shape.image_size, "width": shape.image_size}
    InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(
            size=size, crop_to_patches=True, max_patches=shape.tiles
        ),
        tokenizer=words,
        video_processor=InternVLVideoProcessor(size=size),
        image_seq_length=tile_tokens(shape),
        chat_template=words.chat_template,
    ).save_pretrained(folder)
    return shapes_of(InternVLForConditionalGeneration, config)


def save_chat(shape: InternShape, words: PreTrainedTokenizerFast, folder: Path) -> Any:
    """The same of the form that its authors publish."""
    (folder / "config.json").write_text(json.dumps(config(shape), indent=2))
    shutil.copy(HERE / "internvl" / "configuration_internvl_chat.py", folder)
    words.save_pretrained(folder)
    text = shapes_of(TEXTS[shape.text][1], text_config(shape))
    shapes = {f"language_model.{name}": size for name, size in text.items()}
    return shapes | {name: torch.Size(each) for name, each in tower_shapes(shape).items()}


def write(shape: InternShape, folder: Path) -> None:
    ends = {"bos_token_id": ENDOFTEXT, "eos_token_id": IM_END, "pad_token_id": ENDOFTEXT}
    GenerationConfig(**ends).save_pretrained(folder)
    words = tokenizer(shape)
    shapes = (save_chat if shape.chat else save_own_form)(shape, words, folder)
    head = "language_model.lm_head.weight" if shape.chat else "lm_head.weight"
    weights = draw_under_own_names(shapes, shape.seed, unspoken_ids(words), head)
    save_weights(weights, folder)
