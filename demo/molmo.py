"""Writes a demo Molmo2 the way Ai2 lays out theirs: a tower for crops that overlap, whose patches
are pooled by attention, and a decoder like Qwen3's."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from minicpm import ENDOFTEXT, IM_END
from shapes import HEAD_SIZE, PATCH_SIZE
from tile_shapes import MolmoShape
from tokenizer import VOCABULARY, tokenizer_of, unspoken_ids
from transformers import GenerationConfig
from weights import draw_under_own_names, save_weights

HERE = Path(__file__).parent
CONFIGURATION, PROCESSOR = "configuration_molmo2", "processing_molmo2"
MARKS = {
    "image_start_token_id": "<im_start>",
    "low_res_image_start_token_id": "<low_res_im_start>",
    "image_end_token_id": "<im_end>",
    "image_low_res_id": "<im_low>",
    "image_patch_id": "<im_patch>",
    "image_col_id": "<im_col>",
    "frame_start_token_id": "<frame_start>",
    "frame_end_token_id": "<frame_end>",
}
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|image|>", "<|video|>", *MARKS.values()]
WIDTH, LAYERS, TAKEN = 128, 5, (-2, -4)
"""Of the tower; those of its layers whose outputs are pooled. It ends at the last of these."""
TEXT_WIDTH, QUERIES, KEYS = 256, 4, 2


def config(shape: MolmoShape) -> dict[str, Any]:
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": HEAD_SIZE}
    text = {
        "hidden_size": TEXT_WIDTH,
        "num_attention_heads": QUERIES,
        "num_key_value_heads": KEYS,
        "head_dim": HEAD_SIZE,
        "vocab_size": VOCABULARY,
        "additional_vocab_size": 128,
        "qkv_bias": False,
        "num_hidden_layers": shape.text_layers,
        "intermediate_size": 2 * TEXT_WIDTH,
        "hidden_act": "silu",
        "max_position_embeddings": 8192,
        "rope_theta": 1e6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        "use_qk_norm": True,
        "qk_norm_type": "qwen3",
        "layer_norm_eps": 1e-6,
        "norm_after": False,
        "rope_scaling_layers": None,
    }
    return {
        "architectures": ["Molmo2ForConditionalGeneration"],
        "auto_map": {"AutoConfig": f"{CONFIGURATION}.Molmo2Config"},
        "model_type": "molmo2",
        "dtype": "float32",
        "tie_word_embeddings": False,
        **{name: SPECIAL.index(word) for name, word in MARKS.items()},
        "text_config": text,
        "vit_config": {
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_hidden_layers": LAYERS,
            **heads,
            "hidden_act": "gelu_pytorch_tanh",
            "layer_norm_eps": 1e-6,
            "image_default_input_size": [shape.image_size] * 2,
            "image_patch_size": PATCH_SIZE,
            "image_num_pos": (shape.image_size // PATCH_SIZE) ** 2,
        },
        "adapter_config": {
            "vit_layers": TAKEN,
            "pooling_attention_mask": True,
            "hidden_size": WIDTH,
            **heads,
            "hidden_act": "silu",
            "intermediate_size": 2 * TEXT_WIDTH,
            "text_hidden_size": TEXT_WIDTH,
        },
    }


def tower_shapes(shape: MolmoShape) -> dict[str, tuple[int, ...]]:
    """Of the tower, the pooling and the projector, under names that say how to draw them."""
    backbone = "model.vision_backbone"
    vit, pool = f"{backbone}.image_vit", f"{backbone}.image_pooling_2d"
    shapes: dict[str, tuple[int, ...]] = {
        f"{vit}.pos_embed.weight": ((shape.image_size // PATCH_SIZE) ** 2, WIDTH),
        **_linear(f"{vit}.patch_embedding", 3 * PATCH_SIZE**2, WIDTH),
    }
    for number in range(LAYERS + max(TAKEN) + 1):
        block = f"{vit}.transformer.resblocks.{number}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            shapes |= _linear(f"{block}.attention.{name}", WIDTH, WIDTH)
        shapes |= _linear(f"{block}.feed_forward.fc1", WIDTH, 2 * WIDTH)
        shapes |= _linear(f"{block}.feed_forward.fc2", 2 * WIDTH, WIDTH)
        for norm in ("attention_norm", "ffn_norm"):
            shapes |= {f"{block}.{norm}.weight": (WIDTH,), f"{block}.{norm}.bias": (WIDTH,)}
    for name in ("q_proj", "k_proj", "v_proj"):
        shapes |= _linear(f"{pool}.{name}", len(TAKEN) * WIDTH, WIDTH)
    shapes |= _linear(f"{pool}.o_proj", WIDTH, WIDTH)
    for name in ("w1", "w3"):
        shapes[f"{backbone}.image_projector.{name}.weight"] = (2 * TEXT_WIDTH, WIDTH)
    shapes[f"{backbone}.image_projector.w2.weight"] = (TEXT_WIDTH, 2 * TEXT_WIDTH)
    return shapes


def text_shapes(shape: MolmoShape) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "model.transformer.embed_tokens.weight": (VOCABULARY, TEXT_WIDTH),
        "model.transformer.new.embed_tokens.weight": (128, TEXT_WIDTH),
        "model.transformer.ln_f.weight": (TEXT_WIDTH,),
        "lm_head.weight": (VOCABULARY, TEXT_WIDTH),
    }
    for number in range(shape.text_layers):
        block = f"model.transformer.blocks.{number}"
        heads = QUERIES + 2 * KEYS
        shapes[f"{block}.self_attn.att_proj.weight"] = (heads * HEAD_SIZE, TEXT_WIDTH)
        shapes[f"{block}.self_attn.attn_out.weight"] = (TEXT_WIDTH, QUERIES * HEAD_SIZE)
        shapes[f"{block}.mlp.ff_proj.weight"] = (4 * TEXT_WIDTH, TEXT_WIDTH)
        shapes[f"{block}.mlp.ff_out.weight"] = (TEXT_WIDTH, 2 * TEXT_WIDTH)
        for norm in ("attn_norm", "ff_norm"):
            shapes[f"{block}.{norm}.weight"] = (TEXT_WIDTH,)
        for norm in ("q_norm", "k_norm"):
            shapes[f"{block}.self_attn.{norm}.weight"] = (HEAD_SIZE,)
    return shapes


def _linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def published(name: str) -> str:
    """A weight's name in the checkpoint."""
    for ours, theirs in (
        *(("pos_embed.weight", "positional_embedding"), (".fc", ".w")),
        *(
            ("new.embed_tokens.weight", "wte.new_embedding"),
            ("embed_tokens.weight", "wte.embedding"),
        ),
        *((f".{letter}_proj.", f".w{letter}.") for letter in "qkvo"),
    ):
        name = name.replace(ours, theirs)
    return name


def weights_of(shape: MolmoShape, silent: list[int]) -> dict[str, torch.Tensor]:
    shapes = {**tower_shapes(shape), **text_shapes(shape)}
    sizes = {name: torch.Size(size) for name, size in shapes.items()}
    drawn = draw_under_own_names(sizes, shape.seed, silent)
    return {published(name): weight for name, weight in drawn.items()}


def save_processor(shape: MolmoShape, folder: Path) -> None:
    kinds = {"AutoProcessor": "Molmo2Processor"}
    kinds |= {f"Auto{kind}Processor": f"Molmo2{kind}Processor" for kind in ("Image", "Video")}
    common = {
        "auto_map": {auto: f"{PROCESSOR}.{name}" for auto, name in kinds.items()},
        "processor_class": "Molmo2Processor",
    }
    cut = {
        "size": {"height": shape.image_size, "width": shape.image_size},
        "patch_size": PATCH_SIZE,
    }
    files = {
        "preprocessor": {
            "image_processor_type": "Molmo2ImageProcessor",
            **cut,
            "max_crops": shape.crops,
            "overlap_margins": list(shape.margins),
            "pooling_size": [2, 2],
        },
        "video_preprocessor": {
            "video_processor_type": "Molmo2VideoProcessor",
            **cut,
            "pooling_size": [3, 3],
            "num_frames": 8,
        },
        "processor": {"image_use_col_tokens": True, "use_single_crop_col_tokens": False},
    }
    for name, settings in files.items():
        text = json.dumps({**common, **settings}, indent=2)
        (folder / f"{name}_config.json").write_text(text)


def write(shape: MolmoShape, folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(config(shape), indent=2))
    for code in (CONFIGURATION, PROCESSOR):
        shutil.copy(HERE / "remote" / f"{code}.py", folder)
    ends = {"bos_token_id": ENDOFTEXT, "eos_token_id": IM_END, "pad_token_id": ENDOFTEXT}
    GenerationConfig(**ends).save_pretrained(folder)
    template = (HERE / "minicpm_template.jinja").read_text()
    for name in ("image", "video"):
        template = template.replace(f"<|{name}_pad|>", f"<|{name}|>")
    words = tokenizer_of(
        SPECIAL,
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=template,
    )
    words.save_pretrained(folder)
    save_processor(shape, folder)
    save_weights(weights_of(shape, unspoken_ids(words)), folder)
