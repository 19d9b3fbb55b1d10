"""What is their own of the relatives of Qwen-VL."""

import re
from pathlib import Path
from typing import Any

import torch
from qwen import (
    ENDOFTEXT,
    IM_END,
    IMAGE,
    SPECIAL,
    VIDEO,
    VISION_END,
    VISION_START,
    text_config,
    tokenizer,
    vision_config,
)
from shapes import HEAD_SIZE, QwenShape
from tokenizer import unspoken_ids
from transformers import (
    Exaone4_5_Config,
    Exaone4_5_ForConditionalGeneration,
    Exaone4_5_Processor,
    GenerationConfig,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)
from weights import draw_under_own_names, save_weights, shapes_of

HERE = Path(__file__).parent
WINDOW = 128
"""Tokens that EXAONE's first layer looks back at."""
DIFFUSERS = {
    "q_proj": "to_q",
    "k_proj": "to_k",
    "v_proj": "to_v",
    "o_proj": "to_out",
    "q_norm": "norm_q",
    "k_norm": "norm_k",
}
"""What Cosmos 3 calls the parts of the decoder's attention."""

Config = dict[str, Any]
Weights = dict[str, torch.Tensor]


def as_cosmos3(weights: Weights) -> dict[str, Weights]:
    """The weights of each folder under the names of diffusers, with one of the part that makes
    pictures, which vLLM leaves out."""
    parts: dict[str, Weights] = {"transformer": {}, "vision_encoder": {}}
    for name, weight in weights.items():
        of_tower = name.startswith("model.visual.")
        short = re.sub(r"^model\.(language_model|visual)\.", "", name)
        attention, found, module = short.partition("self_attn.")
        first, _, rest = module.partition(".")
        new = f"{attention}{found}{DIFFUSERS[first]}.{rest}" if found else short
        parts["vision_encoder" if of_tower else "transformer"][new] = weight
    parts["transformer"]["layers.0.self_attn.add_q_proj.weight"] = torch.ones(4, 4)
    return parts


def image_settings(shape: QwenShape) -> dict[str, int]:
    """Of an image processor, as of the demo Qwen."""
    patch: int = vision_config(shape)["patch_size"]
    token = (2 * patch) ** 2
    limits = {"min_pixels": 4 * token, "max_pixels": shape.most_tokens * token}
    return {"patch_size": patch, "merge_size": 2, "temporal_patch_size": 2, **limits}


def exaone_config(shape: QwenShape) -> Exaone4_5_Config:
    """Keys grouped in the tower too; one layer of the decoder with a window, one without positions,
    as published."""
    text = text_config(shape) | {"model_type": "exaone4", "sliding_window": WINDOW}
    text |= {"layer_types": ["sliding_attention", "full_attention"], "head_dim": HEAD_SIZE}
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e6}
    vision = vision_config(shape) | {"num_key_value_heads": 1}
    del vision["tokens_per_second"]
    return Exaone4_5_Config(
        architectures=["Exaone4_5_ForConditionalGeneration"],
        text_config=text,
        vision_config=vision,
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        tie_word_embeddings=False,
        dtype=shape.dtype,
    )


def write_exaone(seed: int, folder: Path) -> None:
    shape = QwenShape("2.5", 2, seed)
    config = exaone_config(shape)
    config.save_pretrained(folder)
    ends = {"bos_token_id": ENDOFTEXT, "eos_token_id": IM_END, "pad_token_id": ENDOFTEXT}
    GenerationConfig(**ends).save_pretrained(folder)
    template, special = (HERE / "qwen_template.jinja").read_text(), [*SPECIAL]
    for old, new in ((VISION_START, "<vision>"), (VISION_END, "</vision>")):
        template, special[old] = template.replace(SPECIAL[old], new), new
    words = tokenizer(special)
    patch = image_settings(shape)
    Exaone4_5_Processor(
        image_processor=Qwen2VLImageProcessor(**patch),
        tokenizer=words,
        video_processor=Qwen2VLVideoProcessor(
            patch_size=patch["patch_size"], merge_size=2, temporal_patch_size=2
        ),
        chat_template=template,
    ).save_pretrained(folder)
    shapes = shapes_of(Exaone4_5_ForConditionalGeneration, config)
    save_weights(draw_under_own_names(shapes, seed, unspoken_ids(words)), folder)
