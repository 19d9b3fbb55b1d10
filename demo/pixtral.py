"""Writes a demo Mistral Small 3 in Mistral's own form: what `mistral` would, in other files, under
other names, and with a tokenizer of Mistral's kind."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import torch
from mistral import MERGE, config
from shapes import HEAD_SIZE, PATCH_SIZE, PixtralShape
from tokenizer import VOCABULARY, train_bpe
from transformers import Mistral3Config, Mistral3ForConditionalGeneration
from transformers.convert_slow_tokenizer import bytes_to_unicode
from weights import draw_under_own_names, save_weights, shapes_of

SPECIAL = [
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]"),
    *("[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    "[TOOL_CONTENT]",
]
"""With the ids of the published tokenizers."""

# What `ByteLevel` splits words by, in front of the merges.
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

# (pattern, replacement), all of which are applied in order.
NAMES = (
    (r"^model\.vision_tower", "vision_encoder"),
    (r"^model\.multi_modal_projector\.norm", "pre_mm_projector_norm"),
    (r"^model\.multi_modal_projector\.patch_merger", "patch_merger"),
    (r"^model\.multi_modal_projector\.linear_1", "vision_language_adapter.w_in"),
    (r"^model\.multi_modal_projector\.linear_2", "vision_language_adapter.w_out"),
    (r"^model\.language_model\.embed_tokens", "tok_embeddings"),
    (r"^model\.language_model\.", ""),
    (r"^lm_head", "output"),
    (r"self_attn", "attention"),
    (r"mlp", "feed_forward"),
    (r"input_layernorm", "attention_norm"),
    (r"post_attention_layernorm", "ffn_norm"),
    (r"\b([qkvo])_proj", r"w\1"),
    (r"gate_proj", "w1"),
    (r"down_proj", "w2"),
    (r"up_proj", "w3"),
)


def native_name(name: str) -> str:
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def interleaved(weight: torch.Tensor) -> torch.Tensor:
    """Mistral rotates each channel of a head with the next one, transformers with the one half a
    head away."""
    heads = weight.unflatten(0, (-1, 2, HEAD_SIZE // 2))
    return heads.transpose(1, 2).flatten(0, 2).contiguous()


def vocabulary() -> list[bytes]:
    """The tokens behind the special ones: all bytes, then what was merged, in that order."""
    byte_of = {letter: byte for byte, letter in bytes_to_unicode().items()}
    ids = train_bpe(SPECIAL).get_vocab()
    words = sorted(ids.keys() - set(SPECIAL), key=ids.__getitem__)
    merged = [bytes(byte_of[letter] for letter in word) for word in words if len(word) > 1]
    return [bytes([byte]) for byte in range(256)] + merged


def tekken(shape: PixtralShape, words: list[bytes]) -> dict[str, Any]:
    return {
        "config": {
            "pattern": WORDS,
            "num_vocab_tokens": len(words),
            "default_vocab_size": VOCABULARY,
            "default_num_special_tokens": len(SPECIAL),
            "version": "v7" if shape.merges else "v3",
        },
        "vocab": [
            {"rank": rank, "token_bytes": base64.b64encode(word).decode(), "token_str": None}
            for rank, word in enumerate(words)
        ],
        "special_tokens": [
            {"rank": rank, "token_str": token, "is_control": True}
            for rank, token in enumerate(SPECIAL)
        ],
        "image" if shape.merges else "multimodal": {
            "image_patch_size": PATCH_SIZE,
            "max_image_size": shape.longest,
            "spatial_merge_size": MERGE if shape.merges else 1,
        },
    }


def params(shape: PixtralShape, settings: Mistral3Config) -> dict[str, Any]:
    text, vision = settings.text_config, settings.vision_config
    merger = {
        "add_pre_mm_projector_layer_norm": True,
        "mm_projector_id": "patch_merge",
        "spatial_merge_size": settings.spatial_merge_size,
    }
    return {
        "dim": text.hidden_size,
        "n_layers": text.num_hidden_layers,
        "head_dim": text.head_dim,
        "hidden_dim": text.intermediate_size,
        "n_heads": text.num_attention_heads,
        "n_kv_heads": text.num_key_value_heads,
        "rope_theta": text.rope_parameters["rope_theta"],
        "norm_eps": text.rms_norm_eps,
        "vocab_size": text.vocab_size,
        "max_position_embeddings": text.max_position_embeddings,
        "vision_encoder": {
            "hidden_size": vision.hidden_size,
            "intermediate_size": vision.intermediate_size,
            "num_hidden_layers": vision.num_hidden_layers,
            "num_attention_heads": vision.num_attention_heads,
            "num_channels": vision.num_channels,
            "image_size": vision.image_size,
            "max_image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "rope_theta": vision.rope_parameters["rope_theta"],
            "adapter_bias": False,
            **(merger if shape.merges else {}),
            "image_token_id": SPECIAL.index("[IMG]"),
            "image_break_token_id": SPECIAL.index("[IMG_BREAK]"),
            "image_end_token_id": SPECIAL.index("[IMG_END]"),
        },
    }


def drawn(shape: PixtralShape, settings: Mistral3Config) -> dict[str, torch.Tensor]:
    """The weights under the names of the transformers form."""
    texts = [b"", *vocabulary()]
    texts[:1] = [b""] * len(SPECIAL)
    silent = [i for i, text in enumerate(texts) if not re.fullmatch(rb" [A-Za-z]+", text)]
    shapes = shapes_of(Mistral3ForConditionalGeneration, settings)
    return draw_under_own_names(shapes, shape.seed, silent)


def write(shape: PixtralShape, folder: Path) -> None:
    settings = config(shape)
    weights = {
        native_name(name): interleaved(weight) if re.search(r"\b[qk]_proj", name) else weight
        for name, weight in drawn(shape, settings).items()
    }
    if not shape.merges:
        weights = {k: v for k, v in weights.items() if not k.startswith(("patch_merger", "pre_mm"))}
    (folder / "params.json").write_text(json.dumps(params(shape, settings), indent=2))
    (folder / "tekken.json").write_text(json.dumps(tekken(shape, vocabulary())))
    save_weights(weights, folder, "consolidated.safetensors")
