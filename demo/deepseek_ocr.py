"""Writes a demo DeepSeek-OCR the way the published checkpoint is laid out: SAM, CLIP behind it, and
a decoder of experts with plain attention. Views have the published sizes; towers are narrow, for
which vLLM has no setting: it loads them where its own are made as narrow
(`environment/narrow_towers.py`)."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from encoder_shapes import encoder_layers, linear, norm
from reader_shapes import DeepseekOcrShape
from shapes import HEAD_SIZE
from tokenizer import VOCABULARY, tokenizer_of, unspoken_ids
from transformers import GenerationConfig, PreTrainedTokenizerFast
from weights import draw_under_own_names, save_weights

SPECIAL = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>", "<image>"]
BOS, EOS, PAD, _ = range(len(SPECIAL))
WIDTH, LAYERS, SAM_LAYERS, WINDOW, GLOBAL = 128, 4, 2, 14, (1,)
"""Of both towers, and of the decoder; of CLIP and SAM; SAM's windows, and the layers without."""
NECK, JOINED = 256, 512
"""Channels of SAM's convolutions, fixed in vLLM."""
PATCH, SIDE, POSITIONS = 16, 64, 16
"""Pixels of SAM's patches, of which a whole picture has so many rows; CLIP's learnt rows."""
EXPERTS, CHOSEN, SHARED, EXPERT = 8, 3, 2, 64
TEMPLATE = (
    "{{ bos_token }}{%- for message in messages -%}"
    "{%- if message['content'] is string -%}{{ message['content'] }}"
    "{%- else -%}{%- for part in message['content'] -%}"
    "{%- if part['type'].startswith('image') -%}{{ '<image>\\n' }}"
    "{%- else -%}{{ part['text'] }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}{%- endfor -%}"
)
"""As vLLM's own for this model, for messages in parts."""


def config(shape: DeepseekOcrShape) -> dict[str, Any]:
    text = {
        "architectures": ["DeepseekV2ForCausalLM"],
        "model_type": "deepseek_v2",
        "dtype": "float32",
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "moe_intermediate_size": EXPERT,
        "num_hidden_layers": shape.text_layers,
        "num_attention_heads": WIDTH // HEAD_SIZE,
        "num_key_value_heads": WIDTH // HEAD_SIZE,
        "first_k_dense_replace": 1,
        "n_routed_experts": EXPERTS,
        "n_shared_experts": SHARED,
        "num_experts_per_tok": CHOSEN,
        "n_group": 1,
        "topk_group": 1,
        "topk_method": "greedy",
        "kv_lora_rank": None,
        "q_lora_rank": None,
        "qk_nope_head_dim": 0,
        "qk_rope_head_dim": 0,
        "v_head_dim": 0,
        "use_mla": False,
        "max_position_embeddings": 8192,
        "rm_head": False,
    }
    return {
        "architectures": ["DeepseekOCRForCausalLM"],
        "model_type": "deepseek_vl_v2",
        "dtype": "float32",
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "tile_tag": "2D",
        "global_view_pos": "head",
        "candidate_resolutions": [[SIDE * PATCH, SIDE * PATCH]],
        "language_config": text,
        "projector_config": {
            "model_type": "mlp_projector",
            "projector_type": "linear",
            "input_dim": 2 * WIDTH,
            "n_embed": WIDTH,
        },
        "vision_config": {
            "model_type": "vision",
            "model_name": "deeplip_b_l",
            "image_size": SIDE * PATCH,
            "mlp_ratio": 3.7362,
        },
    }


def sam_shapes() -> dict[str, tuple[int, ...]]:
    """The first tower's, under names that say how to draw them."""
    sam = "model.sam_model"
    shapes: dict[str, tuple[int, ...]] = {
        f"{sam}.pos_emb": (1, SIDE, SIDE, WIDTH),
        f"{sam}.patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH),
        f"{sam}.patch_embed.proj.bias": (WIDTH,),
        f"{sam}.neck.0.weight": (NECK, WIDTH, 1, 1),
        **norm(f"{sam}.neck.1", NECK),
        f"{sam}.neck.2.weight": (NECK, NECK, 3, 3),
        **norm(f"{sam}.neck.3", NECK),
        f"{sam}.net_2.weight": (JOINED, NECK, 3, 3),
        f"{sam}.net_3.weight": (WIDTH, JOINED, 3, 3),
    }
    for number in range(SAM_LAYERS):
        block = f"{sam}.blocks.{number}"
        reach = 2 * (SIDE if number in GLOBAL else WINDOW) - 1
        shapes |= norm(f"{block}.norm1", WIDTH) | norm(f"{block}.norm2", WIDTH)
        shapes |= linear(f"{block}.attn.qkv", WIDTH, 3 * WIDTH)
        shapes |= linear(f"{block}.attn.proj", WIDTH, WIDTH)
        shapes |= {f"{block}.attn.rel_pos_{axis}": (reach, HEAD_SIZE) for axis in "hw"}
        shapes |= linear(f"{block}.mlp.lin1", WIDTH, 4 * WIDTH)
        shapes |= linear(f"{block}.mlp.lin2", 4 * WIDTH, WIDTH)
    return shapes


def clip_shapes() -> dict[str, tuple[int, ...]]:
    """The second tower's. It has a patch embedding, which nobody uses."""
    clip = "model.vision_model"
    shapes: dict[str, tuple[int, ...]] = {
        f"{clip}.embeddings.class_embedding": (WIDTH,),
        f"{clip}.embeddings.patch_embedding.weight": (WIDTH, 3, 14, 14),
        f"{clip}.embeddings.position_embedding.weight": (POSITIONS**2 + 1, WIDTH),
        **norm(f"{clip}.pre_layrnorm", WIDTH),
    }
    return shapes | encoder_layers(f"{clip}.transformer.layers", LAYERS, WIDTH)


def text_shapes(shape: DeepseekOcrShape) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY, WIDTH),
        "model.norm.weight": (WIDTH,),
        "lm_head.weight": (VOCABULARY, WIDTH),
        **linear("model.projector.layers", 2 * WIDTH, WIDTH),
        "model.image_newline": (WIDTH,),
        "model.view_seperator": (WIDTH,),
    }
    for number in range(shape.text_layers):
        layer = f"model.layers.{number}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            shapes[f"{layer}.self_attn.{name}.weight"] = (WIDTH, WIDTH)
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{layer}.{name}.weight"] = (WIDTH,)
        if number == 0:
            shapes |= _gated(f"{layer}.mlp", 2 * WIDTH)
            continue
        shapes[f"{layer}.mlp.gate.weight"] = (EXPERTS, WIDTH)
        shapes |= _gated(f"{layer}.mlp.shared_experts", SHARED * EXPERT)
        for expert in range(EXPERTS):
            shapes |= _gated(f"{layer}.mlp.experts.{expert}", EXPERT)
    return shapes


def _gated(name: str, width: int) -> dict[str, tuple[int, ...]]:
    into = {f"{name}.{part}_proj.weight": (width, WIDTH) for part in ("gate", "up")}
    return {**into, f"{name}.down_proj.weight": (WIDTH, width)}


def tokenizer() -> PreTrainedTokenizerFast:
    return tokenizer_of(
        SPECIAL, bos_token=SPECIAL[BOS], eos_token=SPECIAL[EOS], pad_token=SPECIAL[PAD],
        chat_template=TEMPLATE,
    )  # fmt: skip


def joined(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights under their published names: CLIP's queries, keys and values are one matrix."""
    made = {}
    for name, weight in weights.items():
        if "model.vision_model" in name and ".q_proj." in name:
            parts = [
                weights[name.replace("q_proj", each)] for each in ("q_proj", "k_proj", "v_proj")
            ]
            made[name.replace("q_proj", "qkv_proj")] = torch.cat(parts)
        elif not ("model.vision_model" in name and re.search(r"\.[kv]_proj\.", name)):
            made[name.replace("sam_model.pos_emb", "sam_model.pos_embed")] = weight
    return made


def write(shape: DeepseekOcrShape, folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(config(shape), indent=2))
    GenerationConfig(bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD).save_pretrained(folder)
    words = tokenizer()
    words.save_pretrained(folder)
    shapes = {**sam_shapes(), **clip_shapes(), **text_shapes(shape)}
    sizes = {name: torch.Size(size) for name, size in shapes.items()}
    drawn = draw_under_own_names(sizes, shape.seed, unspoken_ids(words))
    save_weights(joined(drawn), folder)
