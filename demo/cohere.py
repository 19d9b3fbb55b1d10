"""Writes a demo Command A Vision: SigLIP's tower, the decoder of Command R7B and A."""

from pathlib import Path

from shapes import HEAD_SIZE, PATCH_SIZE
from tile_shapes import CohereShape
from tokenizer import VOCABULARY, tokenizer_of, unspoken_ids
from transformers import (
    Cohere2VisionConfig,
    Cohere2VisionForConditionalGeneration,
    Cohere2VisionImageProcessor,
    Cohere2VisionProcessor,
    GenerationConfig,
)
from weights import draw_under_own_names, published_tower, save_weights, shapes_of

HERE = Path(__file__).parent
IMAGE_TOKENS = {
    "image_token": "<|IMG_PATCH|>",
    "boi_token": "<|START_OF_IMG|>",
    "eoi_token": "<|END_OF_IMG|>",
    "img_line_break_token": "<|IMG_LINE_BREAK|>",
}
TURNS = ["START_OF_TURN", "END_OF_TURN", "USER", "CHATBOT", "SYSTEM"]
SPECIAL = ["<PAD>", "<BOS_TOKEN>", *IMAGE_TOKENS.values(), *(f"<|{each}_TOKEN|>" for each in TURNS)]
PAD, BOS, IMAGE, END = (
    SPECIAL.index(each)
    for each in ("<PAD>", "<BOS_TOKEN>", "<|IMG_PATCH|>", "<|END_OF_TURN_TOKEN|>")
)
WIDTH, LAYERS, SIDE = 128, 4, 2
"""Of the tower, and rows of patches in a token."""


def config(shape: CohereShape) -> Cohere2VisionConfig:
    return Cohere2VisionConfig(
        architectures=["Cohere2VisionForConditionalGeneration"],
        text_config={
            "architectures": ["Cohere2ForCausalLM"],
            "vocab_size": VOCABULARY,
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_hidden_layers": 2,
            "layer_types": ["sliding_attention", "full_attention"],
            "sliding_window": shape.window,
            "num_attention_heads": WIDTH // HEAD_SIZE,
            "num_key_value_heads": WIDTH // HEAD_SIZE,
            "max_position_embeddings": 8192,
            "rope_parameters": {"rope_type": "default", "rope_theta": 50000.0},
            "logit_scale": 3.0,
            "pad_token_id": PAD,
            "bos_token_id": BOS,
            "eos_token_id": END,
            "dtype": "float32",
        },
        vision_config={
            "hidden_size": WIDTH,
            "intermediate_size": 4 * WIDTH,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": WIDTH // HEAD_SIZE,
            "image_size": shape.image_size,
            "patch_size": PATCH_SIZE,
            "vision_use_head": False,
        },
        downsample_factor=SIDE,
        alignment_intermediate_size=4 * WIDTH,
        image_token_id=IMAGE,
        dtype="float32",
    )


def write(shape: CohereShape, folder: Path) -> None:
    GenerationConfig(bos_token_id=BOS, eos_token_id=END, pad_token_id=PAD).save_pretrained(folder)
    words = tokenizer_of(
        SPECIAL,
        bos_token="<BOS_TOKEN>",
        eos_token="<|END_OF_TURN_TOKEN|>",
        pad_token="<PAD>",
        extra_special_tokens=IMAGE_TOKENS,
        chat_template=(HERE / "cohere_template.jinja").read_text(),
    )
    settings, side = config(shape), shape.image_size
    settings.save_pretrained(folder)
    # Its square is the tokens of a tile, to vLLM and transformers; as published, patches are as
    # many pixels wide.
    rows = side // PATCH_SIZE // SIDE
    images = Cohere2VisionImageProcessor(
        size={"height": side, "width": side}, patch_size=rows, max_patches=shape.tiles
    )
    processor = Cohere2VisionProcessor(images, words, chat_template=words.chat_template)
    processor.save_pretrained(folder)
    shapes = shapes_of(Cohere2VisionForConditionalGeneration, settings)
    shapes = {published_tower(name): each for name, each in shapes.items()}
    weights = draw_under_own_names(shapes, shape.seed, unspoken_ids(words))
    del weights["lm_head.weight"]  # it is that of the embeddings
    # Or an answer would repeat the last token, which is most like itself.
    weights["model.language_model.embed_tokens.weight"] /= WIDTH**0.5
    save_weights(weights, folder)
