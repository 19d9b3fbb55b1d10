"""Writes a demo Qwen-VL the way the published checkpoints are laid out."""

import re
from pathlib import Path
from typing import Any

import torch
from shapes import HEAD_SIZE, QwenShape
from tokenizer import VOCABULARY, tokenizer_of, unspoken_ids
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3_5MoeConfig,
    Qwen3_5MoeForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)
from weights import draw_under_own_names, save_weights, shapes_of

HERE = Path(__file__).parent
SPECIAL = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"),
    *("<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
]
ENDOFTEXT, _, IM_END, VISION_START, VISION_END, _, IMAGE, VIDEO = range(len(SPECIAL))
LEAST_TOKENS = 4
"""Of an image."""

KINDS: dict[str, tuple[Any, Any, Any, Any]] = {
    "2": (
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    ),
    "2.5": (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLVideoProcessor,
    ),
    "3": (Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLProcessor, Qwen3VLVideoProcessor),
    "3-moe": (
        Qwen3VLMoeConfig,
        Qwen3VLMoeForConditionalGeneration,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    ),
    "3.5": (
        Qwen3_5Config,
        Qwen3_5ForConditionalGeneration,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    ),
    "3.5-moe": (
        Qwen3_5MoeConfig,
        Qwen3_5MoeForConditionalGeneration,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    ),
}


def text_config(shape: QwenShape) -> dict[str, Any]:
    heads, key_heads = shape.text_heads
    sixteenth = shape.text_width // heads // 16
    section = [2 * sixteenth, 3 * sixteenth, 3 * sixteenth]
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": section}
    if shape.version.startswith("3"):
        rope |= {"mrope_section": [12, 10, 10], "mrope_interleaved": True}
    common = {
        "vocab_size": VOCABULARY,
        "hidden_size": shape.text_width,
        "intermediate_size": shape.text_mlp,
        "num_hidden_layers": shape.text_layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "rope_parameters": rope,
        "bos_token_id": ENDOFTEXT,
        "eos_token_id": IM_END,
        "pad_token_id": ENDOFTEXT,
        "dtype": shape.dtype,
    }
    if shape.version.startswith("3"):
        common["head_dim"] = HEAD_SIZE
    if shape.version.startswith("3.5"):
        # The dense one has a linear head for each of two ranks; experts send more tokens elsewhere
        # then, in bfloat16. A block of 32 tokens holds the state of a linear layer.
        ranks = 1 if shape.version.endswith("-moe") else 2
        section = [6, 5, 5] if ranks == 1 else [11, 11, 10]
        rope |= {"mrope_section": section, "partial_rotary_factor": 0.25}
        common["head_dim"] = 128 * ranks
        layers = shape.text_layers // 2
        common["layer_types"] = ["linear_attention", "full_attention"] * layers
        linear = {"key_head_dim": 64, "value_head_dim": 64}
        linear |= {"num_key_heads": ranks, "num_value_heads": ranks}
        common |= {f"linear_{name}": number for name, number in linear.items()}
    if shape.version.endswith("-moe"):
        common |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 192}
        common |= {"decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True}
    if shape.version == "3.5-moe":
        common["shared_expert_intermediate_size"] = 192
    return common


def vision_config(shape: QwenShape) -> dict[str, Any]:
    layers, width, mlp, heads = shape.tower
    if shape.version == "2":
        return {
            "depth": layers,
            "embed_dim": width,
            "hidden_size": shape.text_width,
            "mlp_ratio": mlp // width,
            "num_heads": heads,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        }
    common = {
        "depth": layers,
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_heads": heads,
        "out_hidden_size": shape.text_width,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }
    if shape.version == "2.5":
        windows = {"window_size": 112, "tokens_per_second": 2}
        windows["fullatt_block_indexes"] = list(shape.whole)
        return {**common, "patch_size": 14, **windows}
    levels = [] if shape.version.startswith("3.5") else [0, 1, 2]
    places = {"num_position_embeddings": 2304, "deepstack_visual_indexes": levels}
    return {**common, "patch_size": 16, **places}


def qwen_config(shape: QwenShape) -> Any:
    kind, model, *_ = KINDS[shape.version]
    return kind(
        architectures=[model.__name__],
        text_config=text_config(shape),
        vision_config=vision_config(shape),
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
        tie_word_embeddings=False,
        dtype=shape.dtype,
    )


def tokenizer(special: list[str] = SPECIAL, **more: Any) -> PreTrainedTokenizerFast:
    return tokenizer_of(
        special,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        **more,
    )


def save_processor(shape: QwenShape, words: PreTrainedTokenizerFast, folder: Path) -> None:
    *_, kind, videos = KINDS[shape.version]
    patch = {"patch_size": vision_config(shape)["patch_size"]}
    patch |= {"merge_size": 2, "temporal_patch_size": 2}
    token = (2 * patch["patch_size"]) ** 2
    limits = {
        "min_pixels": LEAST_TOKENS * token,
        "max_pixels": shape.most_tokens * token,
    }
    processor = kind(
        image_processor=Qwen2VLImageProcessor(**patch, **limits),
        tokenizer=words,
        video_processor=videos(**patch),
        chat_template=(HERE / "qwen_template.jinja").read_text(),
    )
    processor.save_pretrained(folder)


def write(shape: QwenShape, folder: Path) -> None:
    config, words = qwen_config(shape), tokenizer()
    config.save_pretrained(folder)
    ends = {"bos_token_id": ENDOFTEXT, "eos_token_id": IM_END, "pad_token_id": ENDOFTEXT}
    GenerationConfig(**ends).save_pretrained(folder)
    save_processor(shape, words, folder)
    if shape.seed is None:
        return
    shapes = shapes_of(KINDS[shape.version][1], config)
    weights = draw_under_own_names(shapes, shape.seed, unspoken_ids(words))
    if shape.version.startswith("3.5"):
        as_qwen3_5(weights)
    save_weights(weights, folder)


def as_qwen3_5(weights: dict[str, torch.Tensor]) -> None:
    """What the text of Qwen3.5 stores in another way than Qwen3's."""
    for name, weight in weights.items():
        if ".experts." in name:  # [experts, outputs, inputs]
            weights[name] = weight.transpose(1, 2).contiguous()
        elif name.endswith("A_log"):  # a linear layer forgets 5 % a token, not a half
            weight.fill_(-2.5)
        elif "language_model" in name and re.search(r"(?<!attn\.)norm\.weight$", name):
            weight.sub_(1)  # one is added
