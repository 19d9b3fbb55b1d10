"""Writes a demo dots.ocr the way the published checkpoint is laid out."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from reader_shapes import DotsShape
from shapes import HEAD_SIZE, PATCH_SIZE
from tokenizer import VOCABULARY, tokenizer_of, unspoken_ids
from transformers import (
    GenerationConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)
from weights import draw_under_own_names, save_weights, shapes_of

HERE, CODE = Path(__file__).parent, "configuration_dots"
SPECIAL = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|image_pad|>", "<|video_pad|>"),
    *("<|imgpad|>", "<|img|>", "<|endofimg|>", "<|system|>", "<|endofsystem|>"),
    *("<|user|>", "<|endofuser|>", "<|assistant|>", "<|endofassistant|>"),
]
ENDOFTEXT, IMAGE, END = (SPECIAL.index(f"<|{name}|>") for name in ("endoftext", "imgpad", "im_end"))
WIDTH, LAYERS, MERGE, TOKENS = 128, 4, 2, 256
"""Of the tower; patches on a side of a token; tokens of an image at most."""

DECODER = "language_model."
"""In front of the decoder's names while weights are drawn, as of other models."""


def text_config(shape: DotsShape) -> Qwen2Config:
    return Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=shape.text_layers,
        num_attention_heads=WIDTH // HEAD_SIZE,
        num_key_value_heads=WIDTH // HEAD_SIZE,
        max_position_embeddings=8192,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
        use_sliding_window=False,
        bos_token_id=ENDOFTEXT,
        eos_token_id=END,
        pad_token_id=ENDOFTEXT,
        dtype="float32",
    )


def config(shape: DotsShape) -> dict[str, Any]:
    """That of the decoder, and what it has of pictures."""
    return text_config(shape).to_dict() | {
        "architectures": ["DotsOCRForCausalLM"],
        "model_type": "dots_ocr",
        "auto_map": {"AutoConfig": f"{CODE}.DotsOCRConfig"},
        "image_token_id": IMAGE,
        "video_token_id": SPECIAL.index("<|video_pad|>"),
        "vision_config": {
            "embed_dim": WIDTH,
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": WIDTH // HEAD_SIZE,
            "num_channels": 3,
            "patch_size": PATCH_SIZE,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 1,
            "rms_norm_eps": 1e-5,
            "use_bias": False,
            "post_norm": True,
        },
    }


def tower_shapes() -> dict[str, tuple[int, ...]]:
    token = MERGE**2 * WIDTH
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embed.patchifier.proj.weight": (WIDTH, 3, PATCH_SIZE, PATCH_SIZE),
        "patch_embed.patchifier.proj.bias": (WIDTH,),
        "patch_embed.patchifier.norm.weight": (WIDTH,),
        "post_trunk_norm.weight": (WIDTH,),
        "merger.ln_q.weight": (WIDTH,),
        "merger.ln_q.bias": (WIDTH,),
        "merger.mlp.0.weight": (token, token),
        "merger.mlp.0.bias": (token,),
        "merger.mlp.2.weight": (WIDTH, token),
        "merger.mlp.2.bias": (WIDTH,),
    }
    for number in range(LAYERS):
        layer = f"blocks.{number}"
        shapes |= {f"{layer}.norm{which}.weight": (WIDTH,) for which in (1, 2)}
        shapes[f"{layer}.attn.qkv.weight"] = (3 * WIDTH, WIDTH)
        shapes[f"{layer}.attn.proj.weight"] = (WIDTH, WIDTH)
        shapes |= {f"{layer}.mlp.fc{which}.weight": (2 * WIDTH, WIDTH) for which in (1, 3)}
        shapes[f"{layer}.mlp.fc2.weight"] = (WIDTH, 2 * WIDTH)
    return {f"vision_tower.{name}": size for name, size in shapes.items()}


def save_processor(folder: Path, words: Any) -> None:
    token = (MERGE * PATCH_SIZE) ** 2
    patch = {"patch_size": PATCH_SIZE, "merge_size": MERGE, "temporal_patch_size": 1}
    Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(
            **patch, min_pixels=4 * token, max_pixels=TOKENS * token
        ),
        tokenizer=words,
        video_processor=Qwen2VLVideoProcessor(**patch),
        chat_template=(HERE / "dots_template.jinja").read_text(),
    ).save_pretrained(folder)


def write(shape: DotsShape, folder: Path) -> None:
    shutil.copy(HERE / "remote" / f"{CODE}.py", folder)
    (folder / "config.json").write_text(json.dumps(config(shape), indent=2))
    GenerationConfig(eos_token_id=END, pad_token_id=ENDOFTEXT).save_pretrained(folder)
    words = tokenizer_of(SPECIAL, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    save_processor(folder, words)
    text = shapes_of(Qwen2ForCausalLM, text_config(shape))
    shapes = {f"{DECODER}{name}": size for name, size in text.items()}
    shapes |= {name: torch.Size(size) for name, size in tower_shapes().items()}
    head = f"{DECODER}lm_head.weight"
    weights = draw_under_own_names(shapes, shape.seed, unspoken_ids(words), head)
    save_weights({name.removeprefix(DECODER): each for name, each in weights.items()}, folder)
