"""Writes a demo GLM-5-Next the way the published checkpoint is laid out, without the weights of its
decoder, which vLLM does not run on a CPU: tower and processor, for an engine that only encodes."""

from pathlib import Path
from typing import Any

from glm import ENDOFTEXT, HERE, PATCH, USER, WIDTH, token_ids, tokenizer
from shapes import HEAD_SIZE, Glm5Shape
from tokenizer import VOCABULARY, unspoken_ids
from transformers import (
    GenerationConfig,
    Glm5NextConfig,
    Glm5NextForConditionalGeneration,
    Glm5NextImageProcessor,
    Glm5NextProcessor,
    Glm5NextVideoProcessor,
)
from weights import draw_under_own_names, save_weights, shapes_of

DECODER = "model.language_model.layers."


def text_config() -> dict[str, Any]:
    """What vLLM reads of a decoder before it leaves it out: with linear attention alone, since it
    refuses the sparse one on a CPU."""
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "moe_intermediate_size": WIDTH // 2,
        "num_hidden_layers": 2,
        "layer_types": ["linear_attention", "linear_attention"],
        "mlp_layer_types": ["dense", "sparse"],
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
        "q_lora_rank": WIDTH,
        "linear_attn_config": {"head_dim": HEAD_SIZE, "num_heads": 2, "short_conv_kernel_size": 4},
        "mhc": False,
        "mla_use_nope": True,
        "indexer_rope_interleave": False,
        "max_position_embeddings": 8192,
        "eos_token_id": [ENDOFTEXT, USER],
        "pad_token_id": ENDOFTEXT,
        "dtype": "float32",
    }


def glm5_config() -> Glm5NextConfig:
    return Glm5NextConfig(
        architectures=["Glm5NextForConditionalGeneration"],
        text_config=text_config(),
        vision_config={
            "depth": 4,
            "hidden_size": WIDTH,
            "num_heads": WIDTH // HEAD_SIZE,
            "intermediate_size": 2 * WIDTH,
            "out_hidden_size": WIDTH,
            "projection_intermediate_size": 2 * WIDTH,
            "patch_size": PATCH,
        },
        dtype="float32",
        **token_ids(),
    )


def write(shape: Glm5Shape, folder: Path) -> None:
    config, words = glm5_config(), tokenizer()
    config.save_pretrained(folder)
    ends = {"eos_token_id": [ENDOFTEXT, USER], "pad_token_id": ENDOFTEXT}
    GenerationConfig(**ends).save_pretrained(folder)
    Glm5NextProcessor(
        image_processor=Glm5NextImageProcessor(min_image_tokens=4, max_image_tokens=shape.tokens),
        tokenizer=words,
        video_processor=Glm5NextVideoProcessor(min_image_tokens=4, max_image_tokens=shape.video),
        chat_template=(HERE / "glm_template.jinja").read_text(),
    ).save_pretrained(folder)
    shapes = shapes_of(Glm5NextForConditionalGeneration, config)
    shapes = {name: size for name, size in shapes.items() if not name.startswith(DECODER)}
    save_weights(draw_under_own_names(shapes, shape.seed, unspoken_ids(words)), folder)
