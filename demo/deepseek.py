"""Writes a demo DeepSeek-V4 with vision the way the published checkpoint is laid out, without the
weights of its decoder, which vLLM runs no pictures through on a CPU: the tower alone, for an engine
that only encodes. Its processor is vLLM's own."""

import json
from pathlib import Path
from typing import Any

import torch
from shapes import HEAD_SIZE, PATCH_SIZE, DeepseekShape
from tokenizer import VOCABULARY, train_bpe, unspoken_ids
from tokenizers import AddedToken, Tokenizer
from transformers import GenerationConfig, PreTrainedTokenizerFast
from weights import draw_under_own_names, save_weights

SPECIAL = [
    *("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"),
    *("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"),
]
BOS, EOS, PAD, *_ = range(len(SPECIAL))
SENTINELS = {129257 + role: f"<|place_holder_mm_span_{431 + role:04}|>" for role in range(5)}
FAR = {**SENTINELS, 129264: "<｜deepseek_image｜>"}
"""Tokens of an image by their published ids, which vLLM knows by heart."""

WORDS = 129280
"""The published vocabulary, of which the demo has the first ids and these."""

WIDTH, LAYERS, MERGE = 128, 4, 3
"""Of the tower; patches on a side of a token."""


def config(shape: DeepseekShape) -> dict[str, Any]:
    return {
        "architectures": ["DeepseekV4ForCausalLM"],
        "model_type": "deepseek_v4",
        "dtype": "float32",
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "tie_word_embeddings": False,
        **text_config(),
        "vision_n_layers": LAYERS,
        "vision_dim": WIDTH,
        "vision_n_heads": WIDTH // HEAD_SIZE,
        "vision_inter_dim": 2 * WIDTH,
        "vision_patch_size": PATCH_SIZE,
        "vision_rope_theta": 10000.0,
        "vision_downsample_ratio": MERGE,
        "vision_max_n_token": shape.tokens,
        "vision_min_pixels": shape.pixels,
        "vision_max_wh_ratio": 8,
    }


def text_config() -> dict[str, Any]:
    """What vLLM reads of a decoder before it leaves it out: of the published proportions, with one
    layer of each kind of attention."""
    return {
        "vocab_size": WORDS,
        "hidden_size": WIDTH,
        "moe_intermediate_size": WIDTH,
        "num_hidden_layers": 3,
        "num_hash_layers": 1,
        "compress_ratios": [0, 4, 128],
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 512,
        "qk_rope_head_dim": 64,
        "q_lora_rank": WIDTH,
        "o_lora_rank": WIDTH,
        "o_groups": 2,
        "sliding_window": 128,
        "index_topk": 512,
        "index_n_heads": 64,
        "index_head_dim": 128,
        "hc_mult": 4,
        "hc_sinkhorn_iters": 20,
        "hc_eps": 1e-6,
        "n_routed_experts": 8,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "norm_topk_prob": True,
        "topk_method": "noaux_tc",
        "scoring_func": "sqrtsoftplus",
        "routed_scaling_factor": 1.5,
        "swiglu_limit": 10.0,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "compress_rope_theta": 160000.0,
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 16,
            "beta_fast": 32,
            "beta_slow": 1,
            "original_max_position_embeddings": 65536,
        },
        "max_position_embeddings": 1048576,
    }


def weight_shapes() -> dict[str, tuple[int, ...]]:
    token = MERGE**2 * WIDTH
    shapes: dict[str, tuple[int, ...]] = {
        **_linear("vision.patch_embed.proj", 3 * PATCH_SIZE**2, WIDTH),
        "vision.norm.weight": (WIDTH,),
        **_linear("aligner.w1", token, WIDTH),
        **_linear("aligner.w2", WIDTH, WIDTH),
        **{f"image_{role}": (WIDTH,) for role in ("start", "end", "newline", "pad")},
        "head.weight": (VOCABULARY, WIDTH),
    }
    for number in range(LAYERS):
        layer = f"vision.blocks.{number}"
        shapes |= {f"{layer}.{norm}.weight": (WIDTH,) for norm in ("norm1", "norm2")}
        shapes |= _linear(f"{layer}.attn.wqkv", WIDTH, 3 * WIDTH)
        shapes |= _linear(f"{layer}.attn.wo", WIDTH, WIDTH)
        shapes[f"{layer}.mlp.w1.weight"] = (4 * WIDTH, WIDTH)
        shapes[f"{layer}.mlp.w2.weight"] = (WIDTH, 2 * WIDTH)
    return shapes


def _linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def tokenizer() -> PreTrainedTokenizerFast:
    """The words, and far behind them what stands for an image. It has no chat template: vLLM writes
    this model's prompts itself."""
    settings = json.loads(train_bpe(SPECIAL).to_str())
    settings["model"]["vocab"] |= {name: number for number, name in FAR.items()}
    words = Tokenizer.from_str(json.dumps(settings))
    words.add_special_tokens([AddedToken(name, special=True) for name in FAR.values()])
    made = PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token="<｜begin▁of▁sentence｜>",
        eos_token="<｜end▁of▁sentence｜>",
        pad_token="<｜▁pad▁｜>",
        clean_up_tokenization_spaces=False,
        model_max_length=8192,
    )
    assert all(made.convert_tokens_to_ids(name) == number for number, name in FAR.items())
    return made


def write(shape: DeepseekShape, folder: Path) -> None:
    words = tokenizer()
    words.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config(shape), indent=2))
    GenerationConfig(bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD).save_pretrained(folder)
    sizes = {name: torch.Size(size) for name, size in weight_shapes().items()}
    silent = unspoken_ids(words)
    save_weights(draw_under_own_names(sizes, shape.seed, silent, "head.weight"), folder)
