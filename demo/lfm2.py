"""Writes a demo LFM2-VL: SigLIP2's tower for images of any size, LFM2's decoder, in which short
convolutions take turns with attention."""

from pathlib import Path

from shapes import HEAD_SIZE
from tile_shapes import Lfm2Shape
from tokenizer import VOCABULARY, tokenizer_of, unspoken_ids
from transformers import (
    GenerationConfig,
    Lfm2VlConfig,
    Lfm2VlForConditionalGeneration,
    Lfm2VlImageProcessor,
    Lfm2VlProcessor,
)
from weights import draw_under_own_names, published_tower, save_weights, shapes_of

HERE = Path(__file__).parent
MARKS = {
    "image_token": "<image>",
    "image_start_token": "<|image_start|>",
    "image_end_token": "<|image_end|>",
    "image_thumbnail_token": "<|img_thumbnail|>",
}
TILES = 10
"""At most, as published, so each side of the grid has at most as many."""
NAMES = [f"<|img_row_{r}_col_{c}|>" for r in range(1, TILES + 1) for c in range(1, TILES + 1)]
SPECIAL = ["<|pad|>", "<|startoftext|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SPECIAL += [*MARKS.values(), *NAMES]
PAD, START, IM_END, IMAGE = (
    SPECIAL.index(each) for each in ("<|pad|>", "<|startoftext|>", "<|im_end|>", "<image>")
)
WIDTH, LAYERS = 128, 4
"""Of the tower."""
PATCH, SIDE = 16, 2
"""Of a patch in pixels, of a token in patches."""


def config(shape: Lfm2Shape) -> Lfm2VlConfig:
    ends = {"pad_token_id": PAD, "bos_token_id": START, "eos_token_id": IM_END}
    return Lfm2VlConfig(
        architectures=["Lfm2VlForConditionalGeneration"],
        text_config={
            "architectures": ["Lfm2ForCausalLM"],
            "vocab_size": VOCABULARY,
            "hidden_size": WIDTH,
            "block_dim": WIDTH,
            "conv_dim": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "block_auto_adjust_ff_dim": False,
            "num_hidden_layers": 4,
            "layer_types": ["conv", "full_attention"] * 2,
            "num_attention_heads": WIDTH // HEAD_SIZE,
            "num_key_value_heads": 1,
            "max_position_embeddings": 8192,
            "dtype": "float32",
            **ends,
        },
        vision_config={
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": WIDTH // HEAD_SIZE,
            "patch_size": PATCH,
            "num_patches": (shape.tile // PATCH) ** 2,
            "vision_use_head": False,
        },
        downsample_factor=SIDE,
        min_image_tokens=shape.least,
        projector_hidden_size=2 * WIDTH,
        image_token_id=IMAGE,
        dtype="float32",
    )


def write(shape: Lfm2Shape, folder: Path) -> None:
    GenerationConfig(bos_token_id=START, eos_token_id=IM_END, pad_token_id=PAD).save_pretrained(
        folder
    )
    words = tokenizer_of(
        SPECIAL,
        bos_token="<|startoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        extra_special_tokens=MARKS,
        chat_template=(HERE / "lfm2_template.jinja").read_text(),
    )
    settings, tokens = config(shape), (shape.tile // PATCH // SIDE) ** 2
    settings.save_pretrained(folder)
    images = Lfm2VlImageProcessor(
        tile_size=shape.tile,
        max_tiles=TILES,
        max_image_tokens=tokens,
        min_image_tokens=shape.least,
    )
    processor = Lfm2VlProcessor(images, words, chat_template=words.chat_template)
    processor.save_pretrained(folder)
    shapes = shapes_of(Lfm2VlForConditionalGeneration, settings)
    shapes = {published_tower(name): each for name, each in shapes.items()}
    weights = draw_under_own_names(shapes, shape.seed, unspoken_ids(words))
    del weights["lm_head.weight"]  # it is that of the embeddings
    # Or an answer would repeat the last token, which is most like itself.
    weights["model.language_model.embed_tokens.weight"] /= WIDTH**0.5
    save_weights(weights, folder)
