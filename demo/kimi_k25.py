"""Writes a demo Kimi-K2.5: Kimi-VL's decoder and tower, which takes parts of videos too, and vLLM's
own processor of pictures."""

import json
from pathlib import Path
from typing import Any

from kimi import (
    LAYERS,
    MEDIA,
    MERGE,
    PAD,
    POSITIONS,
    WIDTH,
    text_settings,
    text_shapes,
    tokenizer,
    tower_shapes,
    write_model,
)
from shapes import HEAD_SIZE, PATCH_SIZE, KimiK25Shape


def config(shape: KimiK25Shape) -> dict[str, Any]:
    """Under the names of the published file where vLLM reads these, else under transformers'."""
    return {
        "architectures": ["KimiK25ForConditionalGeneration"],
        "model_type": "kimi_k25",
        "dtype": "float32",
        "tie_word_embeddings": False,
        "use_unified_vision_chunk": True,
        "video_placeholder": "<|kimi_k25_video_placeholder|>",
        "image_token_id": MEDIA,
        "media_placeholder_token_id": MEDIA,
        "pad_token_id": PAD,
        "text_config": {**text_settings(shape), "model_type": "kimi_k2"},
        "vision_config": {
            "hidden_size": WIDTH,
            "intermediate_size": 4 * WIDTH,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": WIDTH // HEAD_SIZE,
            "patch_size": PATCH_SIZE,
            "init_pos_emb_height": POSITIONS,
            "init_pos_emb_width": POSITIONS,
            "init_pos_emb_time": shape.frames,
            "pos_emb_type": "divided_fixed",
            "merge_kernel_size": [MERGE, MERGE],
            "merge_type": "sd2_tpool",
            "mm_projector_type": "patchmerger",
            "mm_hidden_size": WIDTH,
            "video_attn_type": "spatial_temporal",
        },
    }


def processor(patches: int, frames: int) -> dict[str, Any]:
    """Of images of so many patches, and of parts of videos of so many frames."""
    return {
        "media_proc_cfg": {
            "patch_size": PATCH_SIZE,
            "merge_kernel_size": MERGE,
            "temporal_merge_kernel_size": frames,
            "in_patch_limit": patches,
            "in_patch_limit_each_frame": patches // frames,
            "in_patch_limit_video": None,
            "patch_limit_on_one_side": 512,
            "fixed_output_tokens": None,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "sample_fps": 2.0,
            "max_num_frames_each_video": None,
            "timestamp_mode": "hh:mm:ss.fff",
        }
    }


def write(shape: KimiK25Shape, folder: Path) -> None:
    shapes = text_shapes(shape) | tower_shapes("mm_projector", ("proj.0", "proj.2"))
    words = tokenizer({"<|media_start|>": "<|media_begin|>"})
    write_model(shape.seed, folder, config(shape), words, shapes)
    settings = processor(shape.patches, shape.frames)
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=2))
