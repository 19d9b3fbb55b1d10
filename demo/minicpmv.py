"""Writes a demo MiniCPM-V with a resampler the way its authors lay out theirs: SigLIP's tower,
queries that look at its patches, and Qwen2's, Llama's or Qwen3's decoder."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from encoder_shapes import encoder_layers, linear, norm
from minicpm import ENDOFTEXT, IM_END
from shapes import HEAD_SIZE, PATCH_SIZE
from tile_shapes import ResamplerShape
from tokenizer import VOCABULARY, tokenizer_of, unspoken_ids
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from weights import draw_under_own_names, save_weights, shapes_of

HERE = Path(__file__).parent
SPECIAL = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<unk>", "<image>", "</image>"),
    *("<slice>", "</slice>", "<image_id>", "</image_id>"),
]
WIDTH, LAYERS, TEXT_WIDTH = 128, 4, 256
"""Of the tower; of the decoder, and so of the resampler, whose heads are 128 wide."""
POSITIONS = 16
"""Of a side, that the tower has: more than a square slice has patches."""
TEXTS: dict[str, tuple[Any, Any]] = {
    "2.6": (Qwen2Config, Qwen2ForCausalLM),
    "4.0": (LlamaConfig, LlamaForCausalLM),
    "4.5": (Qwen3Config, Qwen3ForCausalLM),
}


def text_config(shape: ResamplerShape) -> Any:
    return TEXTS[shape.version][0](
        vocab_size=VOCABULARY,
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=TEXT_WIDTH // HEAD_SIZE,
        num_key_value_heads=2,
        head_dim=HEAD_SIZE,
        max_position_embeddings=8192,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
        bos_token_id=ENDOFTEXT,
        eos_token_id=IM_END,
        pad_token_id=ENDOFTEXT,
        dtype="float32",
    )


def config(shape: ResamplerShape) -> dict[str, Any]:
    kind = f"MiniCPMV{shape.version.replace('.', '_')}Config"
    return {
        **text_config(shape).to_dict(),
        "architectures": ["MiniCPMV"],
        "model_type": "minicpmv",
        "auto_map": {"AutoConfig": f"configuration_minicpmv.{kind}"},
        "version": float(shape.version),
        "query_num": shape.queries,
        "image_size": shape.image_size,
        "drop_vision_last_layer": False,
        "slice_config": {"max_slice_nums": 9, "model_type": "minicpmv", "patch_size": PATCH_SIZE},
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": WIDTH // HEAD_SIZE,
            "image_size": POSITIONS * PATCH_SIZE,
            "patch_size": PATCH_SIZE,
        },
    }


def tower_shapes(shape: ResamplerShape) -> dict[str, tuple[int, ...]]:
    """Of the tower and the resampler."""
    shapes: dict[str, tuple[int, ...]] = {
        "vpm.embeddings.patch_embedding.weight": (WIDTH, 3, PATCH_SIZE, PATCH_SIZE),
        "vpm.embeddings.patch_embedding.bias": (WIDTH,),
        "vpm.embeddings.position_embedding.weight": (POSITIONS**2, WIDTH),
        **norm("vpm.post_layernorm", WIDTH),
        "resampler.query": (shape.queries, TEXT_WIDTH),
        "resampler.proj": (TEXT_WIDTH, TEXT_WIDTH),
        "resampler.kv_proj.weight": (TEXT_WIDTH, WIDTH),
        "resampler.attn.in_proj_weight": (3 * TEXT_WIDTH, TEXT_WIDTH),
        "resampler.attn.in_proj_bias": (3 * TEXT_WIDTH,),
        **linear("resampler.attn.out_proj", TEXT_WIDTH, TEXT_WIDTH),
    }
    for name in ("ln_q", "ln_kv", "ln_post"):
        shapes |= norm(f"resampler.{name}", TEXT_WIDTH)
    return shapes | encoder_layers("vpm.encoder.layers", LAYERS, WIDTH)


def save_processor(shape: ResamplerShape, folder: Path) -> None:
    code = "processing_minicpmv"
    for name in (code, "configuration_minicpmv"):
        shutil.copy(HERE / "remote" / f"{name}.py", folder)
    own = {
        "AutoImageProcessor": f"{code}.MiniCPMVImageProcessor",
        "AutoProcessor": f"{code}.MiniCPMVProcessor",
    }
    settings = {
        "auto_map": own,
        "image_processor_type": "MiniCPMVImageProcessor",
        "processor_class": "MiniCPMVProcessor",
        "scale_resolution": shape.image_size,
        "patch_size": PATCH_SIZE,
        "image_feature_size": shape.queries,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=2))


def template() -> str:
    """MiniCPM-V 4.6's, with what stood for a picture before."""
    text = (HERE / "minicpm_template.jinja").read_text()
    for name in ("image", "video"):
        text = text.replace(f"<|{name}_pad|>", f"(<{name}>./</{name}>)")
    return text


def write(shape: ResamplerShape, folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(config(shape), indent=2))
    ends = {"bos_token_id": ENDOFTEXT, "eos_token_id": IM_END, "pad_token_id": ENDOFTEXT}
    GenerationConfig(**ends).save_pretrained(folder)
    words = tokenizer_of(
        SPECIAL,
        unk_token="<unk>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=template(),
    )
    words.save_pretrained(folder)
    save_processor(shape, folder)
    text = shapes_of(TEXTS[shape.version][1], text_config(shape))
    shapes = {f"llm.{name}": size for name, size in text.items()}
    shapes |= {name: torch.Size(size) for name, size in tower_shapes(shape).items()}
    head = "llm.lm_head.weight"
    save_weights(draw_under_own_names(shapes, shape.seed, unspoken_ids(words), head), folder)
