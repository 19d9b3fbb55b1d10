"""Writes a demo MiniCPM-V 4.6 or 4.7: SigLIP's tower with a merger midway, Qwen3.5's decoder."""

from pathlib import Path
from typing import Any

from qwen import as_qwen3_5, text_config
from shapes import HEAD_SIZE, PATCH_SIZE, QwenShape
from tile_shapes import MiniCPMShape
from tokenizer import tokenizer_of, unspoken_ids
from transformers import (
    GenerationConfig,
    MiniCPMV4_6Config,
    MiniCPMV4_6ForConditionalGeneration,
    MiniCPMV4_6ImageProcessor,
    MiniCPMV4_6Processor,
    MiniCPMV4_6VideoProcessor,
    MiniCPMV4_7Config,
    MiniCPMV4_7ForConditionalGeneration,
    MiniCPMV4_7Processor,
    PreTrainedTokenizerFast,
)
from weights import draw_under_own_names, save_weights, shapes_of

HERE = Path(__file__).parent
MARKS = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "image_start_token": "<image>",
    "image_end_token": "</image>",
    "slice_start_token": "<slice>",
    "slice_end_token": "</slice>",
    "image_id_start_token": "<image_id>",
    "image_id_end_token": "</image_id>",
}
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *MARKS.values()]
ENDOFTEXT, IM_END = 0, 2
WIDTH, LAYERS = 128, 4
"""Of the tower."""
KINDS: dict[str, tuple[Any, Any, Any]] = {
    "4.6": (MiniCPMV4_6Config, MiniCPMV4_6ForConditionalGeneration, MiniCPMV4_6Processor),
    "4.7": (MiniCPMV4_7Config, MiniCPMV4_7ForConditionalGeneration, MiniCPMV4_7Processor),
}


def text_of(shape: MiniCPMShape) -> dict[str, Any]:
    """The decoder's, as that of demo-qwen3.5."""
    text = QwenShape("3.5", shape.text_layers, seed=shape.seed, dtype="bfloat16")
    ends = {"bos_token_id": ENDOFTEXT, "eos_token_id": IM_END, "pad_token_id": ENDOFTEXT}
    return {**text_config(text), **ends, "model_type": "qwen3_5_text"}


def config(shape: MiniCPMShape, words: PreTrainedTokenizerFast) -> Any:
    kind, model, _ = KINDS[shape.version]
    ids = {name: words.convert_tokens_to_ids(mark) for name, mark in MARKS.items()}
    more: dict[str, Any] = {}
    if shape.version == "4.7":
        more = {f"{name}_id": ids[f"{name}_token"] for name in ("image_start", "image_end")}
        more |= {f"{name}_id": ids[f"{name}_token"] for name in ("slice_start", "slice_end")}
        (newline,) = words.encode("\n", add_special_tokens=False)
        more |= {"newline_id": newline, "mrope_mode": "canvas"}
    return kind(
        architectures=[model.__name__],
        text_config=text_of(shape),
        vision_config={
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": WIDTH // HEAD_SIZE,
            "image_size": shape.image_size,
            "patch_size": PATCH_SIZE,
        },
        insert_layer_id=1,
        image_size=shape.image_size,
        image_token_id=ids["image_token"],
        video_token_id=ids["video_token"],
        tie_word_embeddings=False,
        dtype="bfloat16",
        **more,
    )


def write(shape: MiniCPMShape, folder: Path) -> None:
    ends = {"bos_token_id": ENDOFTEXT, "eos_token_id": IM_END, "pad_token_id": ENDOFTEXT}
    GenerationConfig(**ends).save_pretrained(folder)
    words = tokenizer_of(
        SPECIAL,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=MARKS,
    )
    settings = config(shape, words)
    settings.save_pretrained(folder)
    *_, kind = KINDS[shape.version]
    sizes = {"scale_resolution": shape.image_size, "patch_size": PATCH_SIZE}
    processor = kind(
        image_processor=MiniCPMV4_6ImageProcessor(**sizes),
        video_processor=MiniCPMV4_6VideoProcessor(**sizes),
        tokenizer=words,
        chat_template=(HERE / "minicpm_template.jinja").read_text(),
    )
    processor.save_pretrained(folder)
    shapes = shapes_of(KINDS[shape.version][1], settings)
    weights = draw_under_own_names(shapes, shape.seed, unspoken_ids(words))
    as_qwen3_5(weights)
    save_weights(weights, folder)
