"""The shapes of shapes.py as transformers configurations."""

from shapes import HEAD_SIZE, PATCH_SIZE, Shape
from tokenizer import BOS, EOS, IMAGE, PAD, VOCABULARY
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaNextConfig,
    SiglipVisionConfig,
)


def _vision_config(shape: Shape) -> CLIPVisionConfig | SiglipVisionConfig:
    common = {
        "image_size": shape.image_size,
        "patch_size": PATCH_SIZE,
        "hidden_size": shape.vision_width,
        "intermediate_size": 4 * shape.vision_width,
        "num_hidden_layers": shape.vision_layers,
        "num_attention_heads": shape.vision_width // HEAD_SIZE,
    }
    if shape.tower == "clip":
        return CLIPVisionConfig(**common, projection_dim=shape.vision_width)
    return SiglipVisionConfig(**common, vision_use_head=False)


def _text_config(shape: Shape) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=shape.text_width,
        intermediate_size=shape.text_mlp,
        num_hidden_layers=shape.text_layers,
        num_attention_heads=shape.text_width // shape.text_head_size,
        num_key_value_heads=shape.text_width // shape.text_head_size,
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
        dtype=shape.dtype,
    )


def pinpoints(shape: Shape) -> list[list[int]]:
    """Heights and widths of LLaVA-NeXT's grids in pixels."""
    return [[rows * shape.image_size, columns * shape.image_size] for rows, columns in shape.grids]


def llava_config(shape: Shape) -> LlavaConfig | LlavaNextConfig:
    common = {
        "vision_config": _vision_config(shape),
        "text_config": _text_config(shape),
        "image_token_index": IMAGE,
        "image_seq_length": (shape.image_size // PATCH_SIZE) ** 2,
        "projector_hidden_act": "gelu",
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": shape.strategy,
        "tie_word_embeddings": False,
        "dtype": shape.dtype,
    }
    if not shape.grids:
        return LlavaConfig(architectures=["LlavaForConditionalGeneration"], **common)
    return LlavaNextConfig(
        architectures=["LlavaNextForConditionalGeneration"],
        image_grid_pinpoints=pinpoints(shape),
        **common,
    )
