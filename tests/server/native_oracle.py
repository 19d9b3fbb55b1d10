"""A checkpoint in Mistral's own form as `transformers` runs it: the same model of another name."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import Mistral3Config, Mistral3ForConditionalGeneration, PixtralImageProcessor

__all__ = ["native"]

_BEGINNINGS = {
    "vision_encoder.": "model.vision_tower.",
    "pre_mm_projector_norm.": "model.multi_modal_projector.norm.",
    "patch_merger.": "model.multi_modal_projector.patch_merger.",
    "vision_language_adapter.w_in.": "model.multi_modal_projector.linear_1.",
    "vision_language_adapter.w_out.": "model.multi_modal_projector.linear_2.",
    "tok_embeddings.": "model.language_model.embed_tokens.",
    "norm.": "model.language_model.norm.",
    "output.": "lm_head.",
    "layers.": "model.language_model.layers.",
}
"""What a name begins with, and what that is to `transformers`."""

_PARTS = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
_PARTS |= {f"w{letter}": f"{letter}_proj" for letter in "qkvo"}
_OF_TEXT = {
    "attention": "self_attn",
    "feed_forward": "mlp",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def native(folder: Path, picture: Image.Image) -> tuple[Any, Any, int]:
    """Return the model, what its processor would make of a picture that has no need to be resized,
    and the id of the token that ends a row."""
    params = json.loads((folder / "params.json").read_text())
    vision = params["vision_encoder"]
    model = Mistral3ForConditionalGeneration(_config(params)).float().eval()
    weights = load_file(folder / "consolidated.safetensors")
    named = {_name(name): _rotated(name, weight, params) for name, weight in weights.items()}
    model.load_state_dict(named)
    patch, merge = vision["patch_size"], vision["spatial_merge_size"]
    sizes = {"size": {"longest_edge": vision["image_size"]}, "patch_size": patch}
    inputs = PixtralImageProcessor(**sizes)(images=[picture], return_tensors="pt")
    columns, rows = (side // patch // merge for side in picture.size)
    line_break = vision["image_break_token_id"]
    row = [vision["image_token_id"]] * columns
    ids = [*([*row, line_break] * (rows - 1)), *row, vision["image_end_token_id"]]
    return model, {**inputs, "input_ids": torch.tensor([ids])}, line_break


def _config(params: dict[str, Any]) -> Mistral3Config:
    vision = params["vision_encoder"]
    copied = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    return Mistral3Config(
        text_config={
            "model_type": "mistral",
            "vocab_size": params["vocab_size"],
            "hidden_size": params["dim"],
            "intermediate_size": params["hidden_dim"],
            "num_hidden_layers": params["n_layers"],
            "num_attention_heads": params["n_heads"],
            "num_key_value_heads": params["n_kv_heads"],
            "head_dim": params["head_dim"],
            "max_position_embeddings": params["max_position_embeddings"],
            "rms_norm_eps": params["norm_eps"],
            "rope_parameters": {"rope_type": "default", "rope_theta": params["rope_theta"]},
            "sliding_window": None,
            "tie_word_embeddings": False,
        },
        vision_config={
            "model_type": "pixtral",
            **{name: vision[name] for name in (*copied, "image_size", "patch_size")},
            "rope_parameters": {"rope_type": "default", "rope_theta": vision["rope_theta"]},
            "hidden_act": "silu",
        },
        image_token_index=vision["image_token_id"],
        spatial_merge_size=vision["spatial_merge_size"],
        multimodal_projector_bias=vision["adapter_bias"],
        projector_hidden_act="gelu",
        vision_feature_layer=-1,
        tie_word_embeddings=False,
    )


def _name(name: str) -> str:
    ours = next(beginning for beginning in _BEGINNINGS if name.startswith(beginning))
    parts = [_PARTS.get(part, part) for part in name.removeprefix(ours).split(".")]
    if ours == "layers.":
        parts = [_OF_TEXT.get(part, part) for part in parts]
    return _BEGINNINGS[ours] + ".".join(parts)


def _rotated(name: str, weight: torch.Tensor, params: dict[str, Any]) -> torch.Tensor:
    """Put the channels that are rotated together half a head apart, from beside each other."""
    if not re.search(r"\.w[qk]\.", name):
        return weight
    vision = params["vision_encoder"]
    size = params["head_dim"]
    if name.startswith("vision"):
        size = vision["hidden_size"] // vision["num_attention_heads"]
    heads = weight.unflatten(0, (-1, size // 2, 2))
    return heads.transpose(1, 2).flatten(0, 2)
