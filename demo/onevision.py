"""Writes a demo LLaVA-OneVision."""

from itertools import product
from pathlib import Path

from shapes import HEAD_SIZE, PATCH_SIZE, OnevisionShape
from tokenizer import VOCABULARY, tokenizer_of, unspoken_ids
from transformers import (
    GenerationConfig,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)
from weights import draw_under_own_names, published_tower, save_weights, shapes_of

HERE = Path(__file__).parent
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"]
ENDOFTEXT, _, IM_END, IMAGE, VIDEO = range(len(SPECIAL))
WIDTH, LAYERS = 128, 4
"""Of the tower."""


def pinpoints(shape: OnevisionShape) -> list[list[int]]:
    sides = [count * shape.image_size for count in range(1, shape.crops + 1)]
    return [[*size] for size in product(sides, sides)]


def config(shape: OnevisionShape) -> LlavaOnevisionConfig:
    text = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=shape.text_layers,
        num_attention_heads=WIDTH // HEAD_SIZE,
        num_key_value_heads=WIDTH // HEAD_SIZE,
        max_position_embeddings=8192,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
        bos_token_id=ENDOFTEXT,
        eos_token_id=IM_END,
        dtype="float32",
    )
    tower = SiglipVisionConfig(
        image_size=shape.image_size,
        patch_size=PATCH_SIZE,
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=WIDTH // HEAD_SIZE,
        vision_use_head=False,
    )
    return LlavaOnevisionConfig(
        architectures=["LlavaOnevisionForConditionalGeneration"],
        text_config=text,
        vision_config=tower,
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        image_grid_pinpoints=pinpoints(shape),
        tie_word_embeddings=False,
        dtype="float32",
    )


def save_processor(shape: OnevisionShape, words: PreTrainedTokenizerFast, folder: Path) -> None:
    size = {"height": shape.image_size, "width": shape.image_size}
    LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(
            size=size, image_grid_pinpoints=pinpoints(shape)
        ),
        tokenizer=words,
        video_processor=LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=(shape.image_size // PATCH_SIZE) ** 2,
        vision_feature_select_strategy="full",
        chat_template=words.chat_template,
    ).save_pretrained(folder)


def write(shape: OnevisionShape, folder: Path) -> None:
    ends = {"bos_token_id": ENDOFTEXT, "eos_token_id": IM_END, "pad_token_id": ENDOFTEXT}
    GenerationConfig(**ends).save_pretrained(folder)
    words = tokenizer_of(
        SPECIAL,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=(HERE / "internvl_template.jinja").read_text(),
    )
    settings = config(shape)
    settings.save_pretrained(folder)
    save_processor(shape, words, folder)
    shapes = shapes_of(LlavaOnevisionForConditionalGeneration, settings)
    shapes = {published_tower(name): size for name, size in shapes.items()}
    weights = draw_under_own_names(shapes, shape.seed, unspoken_ids(words))
    save_weights(weights, folder)
