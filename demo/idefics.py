"""Writes a demo Idefics3 or SmolVLM."""

from pathlib import Path
from typing import Any

from shapes import HEAD_SIZE, PATCH_SIZE, IdeficsShape
from tokenizer import VOCABULARY, tokenizer_of, unspoken_ids
from transformers import (
    GenerationConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    LlamaConfig,
    PreTrainedTokenizerFast,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)
from weights import draw_under_own_names, save_weights, shapes_of

HERE = Path(__file__).parent
SPECIAL = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<end_of_utterance>"),
    *("<fake_token_around_image>", "<image>", "<global-img>"),
]
ENDOFTEXT, IM_START, _, END, _, IMAGE, _ = range(len(SPECIAL))
WIDTH, LAYERS = 128, 4
"""Of the tower."""


def config(shape: IdeficsShape) -> Idefics3Config | SmolVLMConfig:
    kind, name = (SmolVLMConfig, "SmolVLM") if shape.smol else (Idefics3Config, "Idefics3")
    text = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=shape.text_layers,
        num_attention_heads=WIDTH // HEAD_SIZE,
        num_key_value_heads=WIDTH // HEAD_SIZE,
        max_position_embeddings=8192,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        bos_token_id=IM_START,
        eos_token_id=END,
        pad_token_id=ENDOFTEXT,
        dtype="float32",
    )
    return kind(
        architectures=[f"{name}ForConditionalGeneration"],
        text_config=text.to_dict(),
        vision_config={
            "hidden_size": WIDTH,
            "intermediate_size": 4 * WIDTH,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": WIDTH // HEAD_SIZE,
            "image_size": shape.image_size,
            "patch_size": PATCH_SIZE,
        },
        image_token_id=IMAGE,
        scale_factor=shape.scale,
        pad_token_id=ENDOFTEXT,
        tie_word_embeddings=False,
        dtype="float32",
    )


def tokenizer(shape: IdeficsShape) -> PreTrainedTokenizerFast:
    sides = range(1, shape.tiles + 1)
    names = [f"<row_{row}_col_{column}>" for row in sides for column in sides]
    return tokenizer_of(
        [*SPECIAL, *names],
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        pad_token="<|endoftext|>",
        chat_template=(HERE / "idefics_template.jinja").read_text(),
    )


def processor(shape: IdeficsShape, words: PreTrainedTokenizerFast) -> Any:
    sizes = {
        "size": {"longest_edge": shape.tiles * shape.image_size},
        "max_image_size": {"longest_edge": shape.image_size},
    }
    more = {
        "image_seq_len": (shape.image_size // PATCH_SIZE // shape.scale) ** 2,
        "chat_template": words.chat_template,
    }
    if shape.smol:
        videos = SmolVLMVideoProcessor(**sizes)
        return SmolVLMProcessor(SmolVLMImageProcessor(**sizes), words, videos, **more)
    return Idefics3Processor(Idefics3ImageProcessor(**sizes), words, **more)


def write(shape: IdeficsShape, folder: Path) -> None:
    ends = {"bos_token_id": IM_START, "eos_token_id": END, "pad_token_id": ENDOFTEXT}
    GenerationConfig(**ends).save_pretrained(folder)
    words, settings = tokenizer(shape), config(shape)
    settings.save_pretrained(folder)
    processor(shape, words).save_pretrained(folder)
    kind = SmolVLMForConditionalGeneration if shape.smol else Idefics3ForConditionalGeneration
    weights = draw_under_own_names(shapes_of(kind, settings), shape.seed, unspoken_ids(words))
    save_weights(weights, folder)
