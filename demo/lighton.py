"""Writes a demo LightOnOCR the way the published checkpoint is laid out: a Mistral 3 by its
configuration, with Qwen3's decoder and names of weights of its own."""

import json
import re
from pathlib import Path
from typing import Any

from reader_shapes import LightOnShape
from shapes import HEAD_SIZE, PATCH_SIZE
from tokenizer import VOCABULARY, tokenizer_of, unspoken_ids
from transformers import (
    GenerationConfig,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PixtralImageProcessor,
    PixtralProcessor,
)
from weights import draw_under_own_names, save_weights, shapes_of

HERE = Path(__file__).parent
SPECIAL = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"),
    *("<|vision_pad|>", "<|image_pad|>"),
]
ENDOFTEXT, END, IMAGE = (
    SPECIAL.index(f"<|{name}|>") for name in ("endoftext", "im_end", "image_pad")
)
WIDTH, MERGE, LONGEST = 128, 2, 448
"""Longest side of an image: 16 tokens."""


def config(shape: LightOnShape) -> Mistral3Config:
    heads = {"num_attention_heads": WIDTH // HEAD_SIZE, "head_dim": HEAD_SIZE}
    return Mistral3Config(
        architectures=["LightOnOCRForConditionalGeneration"],
        text_config={
            "model_type": "qwen3",
            "vocab_size": VOCABULARY,
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_hidden_layers": shape.text_layers,
            "num_key_value_heads": WIDTH // HEAD_SIZE,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": False,
            "eos_token_id": END,
            "dtype": "float32",
            **heads,
        },
        vision_config={
            "model_type": "pixtral",
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_hidden_layers": 4,
            "image_size": LONGEST,
            "patch_size": PATCH_SIZE,
            "hidden_act": "silu",
            **heads,
        },
        image_token_index=IMAGE,
        spatial_merge_size=MERGE,
        multimodal_projector_bias=False,
        projector_hidden_act="gelu",
        vision_feature_layer=-1,
        tie_word_embeddings=False,
        dtype="float32",
    )


def published(name: str) -> str:
    name = re.sub(r"^model\.vision_tower\.", "model.vision_encoder.", name)
    return re.sub(r"^model\.multi_modal_projector\.", "model.vision_projection.", name)


def save_processor(folder: Path, words: Any) -> None:
    """Rows have no breaks; the processor wants their names all the same."""
    PixtralProcessor(
        image_processor=PixtralImageProcessor(
            size={"longest_edge": LONGEST}, patch_size=PATCH_SIZE
        ),
        tokenizer=words,
        patch_size=PATCH_SIZE,
        spatial_merge_size=MERGE,
        chat_template=(HERE / "lighton_template.jinja").read_text(),
        image_token="<|image_pad|>",
        image_break_token="<|vision_pad|>",
        image_end_token="<|vision_end|>",
    ).save_pretrained(folder)
    file = folder / "processor_config.json"
    settings = json.loads(file.read_text())
    settings["image_processor"]["do_pad"] = None  # as published
    file.write_text(json.dumps(settings, indent=2))


def write(shape: LightOnShape, folder: Path) -> None:
    settings = config(shape)
    settings.save_pretrained(folder)
    GenerationConfig(eos_token_id=END, pad_token_id=ENDOFTEXT).save_pretrained(folder)
    words = tokenizer_of(SPECIAL, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    save_processor(folder, words)
    shapes = shapes_of(Mistral3ForConditionalGeneration, settings)
    weights = draw_under_own_names(shapes, shape.seed, unspoken_ids(words))
    save_weights({published(name): weight for name, weight in weights.items()}, folder)
